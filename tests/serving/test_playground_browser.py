"""The playground in a real browser, against a real server: what it shows is what the model says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.serving.bodies import png
from tests.serving.launch import CLASSES, sample
from tests.test_report_browser import browser  # noqa: F401

pytestmark = pytest.mark.slow
WAIT = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in ("small", "odd", "large"):
        (folder / f"{name}.png").write_bytes(png(name))
    (folder / "text.png").write_text("no image")
    turned, exif = Image.fromarray(np.rot90(sample("odd"), 1)), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise for display
    turned.save(folder / "turned.jpg", quality=100, subsampling=0, exif=exif)
    turned.save(folder / "turned.png", exif=exif)
    turned.save(folder / "turned.webp", lossless=True, exif=exif)
    return folder


@pytest.fixture
def page(browser, server):  # noqa: F811
    """The page, fresh, at 1280 pixels."""
    resize(browser, 1280)
    browser.get(server.url)
    browser.get_log("browser")
    return browser


def resize(page, width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def by(page, name: str):
    return page.find_element("id", name)


def choose(page, file) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    by(page, "file").send_keys(str(file))
    WebDriverWait(page, WAIT).until(
        lambda _: by(page, "error").is_displayed() or by(page, "status").text.startswith("Done")
    )


def overlay(page) -> np.ndarray:
    """(H, W, 4) RGBA of the overlay's canvas."""
    width, height, values = page.execute_script(
        "const c = document.getElementById('overlay');"
        "return [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    )
    return np.reshape(values, (height, width, 4))


def colored(ids) -> np.ndarray:
    return np.asarray(list(CLASSES.values()))[ids]


def readout(page) -> tuple[str, str, str]:
    return tuple(by(page, name).text for name in ("what", "sure", "where"))


def test_the_overlay_and_the_legend_are_the_model_s_answer(page, files, expected, server):
    choose(page, files / "odd.png")
    shown = overlay(page)
    np.testing.assert_array_equal(shown[..., :3], colored(expected["odd"]))
    assert (shown[..., 3] == 255).all()
    shares = np.bincount(expected["odd"].ravel(), minlength=4) / expected["odd"].size
    rows = page.execute_script(
        "return [...document.querySelectorAll('#classes label')].map(l => [l.querySelector('.name').textContent,"
        " l.querySelector('.share').textContent])"
    )
    order = np.argsort(-shares, kind="stable")
    assert [name for name, _ in rows] == [list(CLASSES)[i] for i in order]
    assert float(rows[0][1].removesuffix(" %")) == pytest.approx(100 * shares.max(), abs=0.051)
    assert f"{by(page, 'version').text};sha256={by(page, 'digest').text}" in server.model
    for time in ("predict", "total", "trip"):
        assert by(page, time).text.endswith("s") and by(page, time).text[0].isdigit()
    assert page.get_log("browser") == []


def test_the_keyboard_alone_reaches_and_reads_a_pixel(page, files, expected):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    choose(page, files / "small.png")
    page.execute_script("document.getElementById('choose').focus()")
    for _ in range(10):
        ActionChains(page).send_keys(Keys.TAB).perform()
        if page.switch_to.active_element.get_attribute("id") == "view":
            break
    view = page.switch_to.active_element
    assert view.get_attribute("id") == "view"
    view.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    height, width = expected["small"].shape
    check_pixel(page, expected, "small", width // 2 + 1 - 10, height // 2 + 2)
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 5).until(lambda _: readout(page)[0] in by(page, "said").get_attribute("textContent"))
    view.send_keys(*[Keys.ARROW_UP] * 40)
    assert readout(page)[2].endswith("y 0")


def test_who_has_no_image_tries_a_sample_with_the_keyboard(page, server):
    import httpx
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    from tests.serving.bodies import ids_of

    page.execute_script("document.getElementById('choose').focus()")
    page.switch_to.active_element.send_keys(Keys.TAB)
    for number in range(2):
        assert page.switch_to.active_element.get_attribute("id") == "sample"
        page.switch_to.active_element.send_keys(Keys.ENTER)
        shown = f"768 × 384 · sample-{number + 1}.jpg"
        WebDriverWait(page, WAIT).until(lambda _, shown=shown: by(page, "named").text == shown)
        image = httpx.get(f"{server.url}/sample?n={number}").content
        ids = ids_of(server.post("/predict", image, content_type="image/jpeg").content)
        np.testing.assert_array_equal(overlay(page)[..., :3], colored(ids))
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def check_pixel(page, expected, name, x, y):
    what, sure, where = readout(page)
    logits = expected[f"{name}.logits"][:, y, x]
    certain = 100 / np.exp(logits - logits.max()).sum()
    assert where == f"x {x}, y {y}" and what == list(CLASSES)[expected[name][y, x]]
    assert float(sure.removesuffix(" % sure")) == pytest.approx(certain, abs=1.5)


def test_a_click_reads_the_pixel_under_it(page, files, expected):
    from selenium.webdriver.common.action_chains import ActionChains

    choose(page, files / "small.png")
    box = page.execute_script(
        "const b = document.getElementById('picture').getBoundingClientRect(); return [b.width, b.height]"
    )
    dx, dy = int(box[0] / 4), int(-box[1] / 4)
    ActionChains(page).move_to_element_with_offset(by(page, "view"), dx, dy).click().perform()
    height, width = expected["small"].shape
    _, _, where = readout(page)
    x, y = (int(part.split()[1]) for part in where.split(","))
    assert abs(x - 0.75 * width) <= 1 and abs(y - 0.25 * height) <= 1
    check_pixel(page, expected, "small", x, y)
    assert by(page, "cursor").is_displayed()


def test_classes_are_hidden_and_shown_and_the_opacity_moves(page, files, expected):
    choose(page, files / "small.png")
    most = int(np.bincount(expected["small"].ravel()).argmax())
    page.find_element("css selector", "#classes li:first-child input").click()
    np.testing.assert_array_equal(overlay(page)[..., 3] == 0, expected["small"] == most)
    by(page, "none").click()
    assert (overlay(page)[..., 3] == 0).all()
    by(page, "every").click()
    page.execute_script("document.body.focus()")
    from selenium.webdriver.common.keys import Keys

    by(page, "opacity").send_keys(Keys.END)
    assert by(page, "percent").text == "100 %"
    assert page.execute_script("return getComputedStyle(document.getElementById('overlay')).opacity") == "1"


def test_the_confidence_view_is_brighter_where_the_model_is_surer(page, files, expected):
    choose(page, files / "small.png")
    page.find_element("css selector", "input[value=confidence]").send_keys(" ")
    logits = expected["small.logits"]
    certain = 1 / np.exp(logits - logits.max(0)).sum(0)
    green = overlay(page)[..., 1]  # viridis: its green rises from end to end
    assert np.corrcoef(green.ravel(), certain.ravel())[0, 1] > 0.95
    assert float(by(page, "mean").text.split()[1]) == pytest.approx(100 * certain.mean(), abs=1)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_phone_s_turned_photo_is_shown_upright_with_its_mask(page, files, server, kind):
    from tests.serving.bodies import ids_of

    choose(page, files / f"turned.{kind}")
    shown = overlay(page)
    natural = page.execute_script(
        "const p = document.getElementById('picture'); return [p.naturalHeight, p.naturalWidth]"
    )
    upright = natural == [45, 71]
    assert list(shown.shape[:2]) == natural and (upright or kind == "webp")  # Chromium shows those as they are stored
    turned = server.post("/predict", (files / f"turned.{kind}").read_bytes(), content_type="image/jpeg")
    np.testing.assert_array_equal(shown[..., :3], colored(np.rot90(ids_of(turned.content), -1 if upright else 0)))


def test_a_refusal_is_shown_in_the_server_s_words_and_may_be_mended(page, files):
    choose(page, files / "text.png")
    assert by(page, "sentence").text.startswith("image: not an image, or a damaged one; send JPEG, PNG, WEBP")
    assert by(page, "error").get_attribute("role") == "alert" and not by(page, "view").is_displayed()
    choose(page, files / "small.png")
    assert not by(page, "error").is_displayed() and by(page, "view").is_displayed()


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_an_image_may_be_dropped_or_pasted(page, files, expected, how):
    from selenium.webdriver.support.ui import WebDriverWait

    page.execute_script(
        "const data = new DataTransfer(); data.items.add(new File([new Uint8Array(arguments[1])], 'in.png'));"
        "const how = arguments[0], Kind = how === 'drop' ? DragEvent : ClipboardEvent;"
        "document.body.dispatchEvent(new Kind(how, {bubbles: true, cancelable: true,"
        " [how === 'drop' ? 'dataTransfer' : 'clipboardData']: data}))",
        how,
        list((files / "small.png").read_bytes()),
    )
    WebDriverWait(page, WAIT).until(lambda _: by(page, "status").text.startswith("Done"))
    np.testing.assert_array_equal(overlay(page)[..., :3], colored(expected["small"]))


@pytest.mark.parametrize("width", [1280, 390])
def test_everything_fits_and_can_be_touched(page, files, width):
    resize(page, width)
    choose(page, files / "large.png")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    cut = page.execute_script(
        "return [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.unseen, #file'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert cut == []
    small = page.execute_script(
        "return [...document.querySelectorAll('button, a.button, label:has(input), input[type=range]')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 24).map(e => e.outerHTML)"
    )
    assert small == []


def test_controls_have_names_and_nothing_leaves_for_elsewhere(page, files, server):
    page.get_log("performance")
    choose(page, files / "small.png")
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "link", "checkbox", "radio", "slider", "application", "image", "group"}
    controls = [n for n in tree if n.get("role", {}).get("value") in roles and not n.get("ignored")]
    assert len(controls) > 8 and [n for n in controls if not n.get("name", {}).get("value")] == []
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(server.url) for url in sent)
    assert [url for url in sent if not url.startswith((server.url, "blob:", "data:"))] == []


def test_it_follows_the_reader_s_colour_scheme(page):
    brightness = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        color = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))
    assert brightness["light"] > 600 and brightness["dark"] < 150
