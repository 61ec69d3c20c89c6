"""The playground's page, as it leaves the server."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import httpx

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
from segraft.params import load_params
from segraft.serving.playground import render
from tests.serving.launch import CLASSES
from tests.serving.running import ROOT

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Tags(HTMLParser):
    """Every tag with its attributes, every id, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in self.inline and data.strip():
            self.inline[self.tags[-1][0]].append(data)


def page(**changes) -> tuple[Tags, dict[str, str]]:
    card = ModelCard(
        arch="unet",
        encoder="resnet18",
        taxonomy="test",
        classes=tuple(ClassCard(name=name, color=(1, 2, 3)) for name in changes.pop("names", ["a", "b"])),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    made = render(card, load_params(ROOT / "params.yaml").serve, changes.pop("stamp", "segraft/3;sha256=abcdef"))
    return Tags(made.body.decode()), made.headers


def test_browsers_get_the_page_and_probes_what_kserve_says(server):
    answer = httpx.get(server.url, headers=HTML)
    assert answer.headers["content-type"].startswith("text/html") and answer.headers["vary"] == "accept"
    assert answer.headers["x-segraft-model"] == server.model and server.model.partition(";")[0] in answer.text
    assert httpx.get(server.url).json() == {"status": "alive"}
    facts = json.loads(Tags(answer.text).inline["script"][0])
    assert facts["classes"] == [{"name": name, "color": list(color)} for name, color in CLASSES.items()]


def test_there_are_samples_for_who_has_no_image(server):
    import io

    from PIL import Image

    first, second, again = (httpx.get(f"{server.url}/sample?n={number}", timeout=60) for number in (0, 1, 4))
    assert first.headers["content-type"] == "image/jpeg" and first.content == again.content != second.content
    assert Image.open(io.BytesIO(first.content)).size == (768, 384)
    refused = httpx.get(f"{server.url}/sample?n=-1")
    assert refused.status_code == 400 and refused.json() == {"error": "query.n: '-1': expected a number"}


def test_every_answer_says_what_it_cost(server):
    from tests.serving.bodies import png

    timing = server.post("/predict", png("small"), content_type="image/png").headers["server-timing"]
    stages = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", timing)}
    assert {"read", "decode", "predict", "encode", "total"} <= set(stages)
    assert 0 < stages["predict"] < stages["total"]


def test_nothing_is_loaded_from_anywhere():
    tags, headers = page()
    loaded = [attrs.get(key) for _, attrs in tags.tags for key in ("src", "href") if attrs.get(key)]
    assert loaded and all(address.startswith(("#", "data:")) for address in loaded)
    assert not re.search(r"//[a-z]+\.[a-z]", "".join(tags.inline["script"] + tags.inline["style"]))
    assert "default-src 'none'" in headers["content-security-policy"]


def test_the_policy_lets_this_script_and_this_style_run_and_no_other():
    tags, headers = page()
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    for directive, text in (("script-src", tags.inline["script"][1]), ("style-src", tags.inline["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert not [attrs for _, attrs in tags.tags if "style" in attrs or any(key.startswith("on") for key in attrs)]


def test_names_cannot_break_out_of_the_page():
    evil = "</script><script>alert(1)</script>"
    tags, _ = page(names=[evil, "b"], stamp=f"{evil};sha256=x")
    assert len([tag for tag, _ in tags.tags if tag == "script"]) == 2
    assert json.loads(tags.inline["script"][0])["classes"][0]["name"] == evil


def test_what_the_script_looks_up_is_in_the_page():
    tags, _ = page()
    ids = [attrs["id"] for _, attrs in tags.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    looked_up = set(re.findall(r'\$\("(\w+)"\)', tags.inline["script"][1]))
    assert looked_up and looked_up <= set(ids)
    referred = [
        attrs[key] for _, attrs in tags.tags for key in ("for", "aria-labelledby", "aria-describedby") if key in attrs
    ]
    assert set(referred) <= set(ids)
