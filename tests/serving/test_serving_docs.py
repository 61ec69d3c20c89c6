"""docs/serving.md: its commands and its Python run against a real server."""

import re
import subprocess
import sys

from PIL import Image

from tests.serving.bodies import encoded
from tests.serving.running import ROOT

TEXT = (ROOT / "docs/serving.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_the_curl_lines_work(server, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded("small", "JPEG"))
    script = next(block for block in blocks("bash") if "curl" in block).replace("http://127.0.0.1:8080", server.url)
    assert script.count("curl ") == 4
    script = script.replace("curl ", "curl --no-progress-meter --fail-with-body --max-time 60 ")
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"classes"' in done.stdout and '"FeatureCollection"' in done.stdout
    assert Image.open(tmp_path / "mask.png").mode == "P" and Image.open(tmp_path / "overlay.png").size == (96, 64)


def test_the_python_works(server, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded("small", "JPEG"))
    code = next(block for block in blocks("python") if "httpx.post" in block)
    code = code.replace("http://127.0.0.1:8080", server.url) + "\nassert abs(sum(shares.values()) - 1) < 1e-6, shares\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_output_setting_and_metric_is_explained():
    from segraft.params import ServeLimits
    from segraft.serving.asks import OUTPUTS, Options

    for name in OUTPUTS:
        assert f"| `{name}`" in TEXT, name
    for name in set(Options.model_fields) - {"outputs"}:
        assert f"`{name}`" in TEXT, name
    assert ServeLimits.model_fields.keys() >= {"header", "body"} and "`limits.header`" in TEXT
