"""The report in a real browser, at desktop and phone width."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage""".split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[object]:
    chromium = next((path for path in map(shutil.which, ("chromium", "google-chrome", "chrome")) if path), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on this machine (Debian: apt install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    session = webdriver.Chrome(options=options, service=Service(driver))
    yield session
    session.quit()


def show(browser, page: Path, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [1280, 390])
def test_fits_the_window_and_shows_every_image(browser, evaluated, width):
    show(browser, evaluated / "report.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    images = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().right, i.alt])"
    )
    assert len(images) == 4 * 6
    for complete, natural, right, alt in images:
        assert complete and natural > 0 and right <= width and alt
    clipped = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, p, li, dd, figcaption')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.textContent)"
    )
    assert clipped == []


def test_asks_nothing_of_any_network_and_reports_no_error(browser, evaluated):
    browser.get_log("performance")
    browser.get_log("browser")
    show(browser, evaluated / "report.html", 1280)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in sent)
    assert [url for url in sent if not url.startswith(("file:", "data:"))] == []
    assert browser.get_log("browser") == []


def test_wide_tables_scroll_from_the_keyboard(browser, evaluated):
    show(browser, evaluated / "report.html", 390)
    unreachable = browser.execute_script(
        "return [...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1"
        " && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0).map(e => e.outerHTML)"
    )
    assert unreachable == []


def test_follows_the_readers_colour_scheme(browser, evaluated):
    show(browser, evaluated / "report.html", 1280)
    brightness = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))
    assert brightness["light"] > 600 and brightness["dark"] < 150
