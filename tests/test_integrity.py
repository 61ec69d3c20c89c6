import json
import os
from pathlib import Path

import pytest

from segraft.errors import UserError
from segraft.integrity import LARGEST_MANIFEST, MANIFEST, seal, verify


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "sealed"
    (root / "data").mkdir(parents=True)
    (root / "card.json").write_text("{}")
    (root / "data/weights").write_bytes(bytes(range(256)) * 40)
    return root


def test_a_sealed_folder_passes_and_the_same_bytes_have_the_same_seal(folder):
    first = seal(folder)
    verify(folder, first)
    verify(folder)
    assert seal(folder) == first
    assert set(json.loads((folder / MANIFEST).read_text())["files"]) == {"card.json", "data/weights"}


def flip_a_bit(folder: Path):
    path = folder / "data/weights"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def link_to_the_same_bytes(folder: Path):
    (folder / "card.json").rename(folder.parent / "elsewhere")
    (folder / "card.json").symlink_to(folder.parent / "elsewhere")


def link_the_folder(folder: Path):
    (folder / "data").rename(folder.parent / "elsewhere")
    (folder / "data").symlink_to(folder.parent / "elsewhere")


def list_a_path_outside(folder: Path):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../../etc/passwd"] = {"size": 1, "sha256": ""}
    (folder / MANIFEST).write_text(json.dumps(manifest))


TAMPERINGS = {
    "bit flip": (flip_a_bit, "data/weights: its sha256 differs"),
    "truncated": (lambda f: os.truncate(f / "data/weights", 100), "data/weights: 100 bytes, sealed with 10240"),
    "empty": (lambda f: os.truncate(f / "card.json", 0), "card.json: 0 bytes"),
    "missing": (lambda f: (f / "card.json").unlink(), "card.json: missing"),
    "extra": (lambda f: (f / "data/more.py").write_text(""), "data/more.py: extra"),
    "hidden": (lambda f: (f / ".hidden").write_text(""), ".hidden: extra"),
    "empty folder": (lambda f: (f / "__pycache__").mkdir(), "__pycache__/: extra, an empty folder"),
    "link": (link_to_the_same_bytes, "card.json: a symbolic link"),
    "linked folder": (link_the_folder, "data: extra, a symbolic link"),
    "broken link": (lambda f: (f / "x").symlink_to("/nowhere"), "x: extra, a symbolic link"),
    "pipe": (lambda f: os.mkfifo(f / "x"), "x: extra, not a regular file"),
    "pipe for a file": (lambda f: ((f / "card.json").unlink(), os.mkfifo(f / "card.json")), "card.json: not a regular"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest a link": (lambda f: ((f / MANIFEST).unlink(), (f / MANIFEST).symlink_to("card.json")), "a symbolic link"),
    "manifest garbage": (lambda f: (f / MANIFEST).write_text("[1]"), "not a manifest"),
    "manifest deep": (lambda f: (f / MANIFEST).write_text("[" * 100_000), "not a manifest"),
    "manifest huge": (lambda f: os.truncate(f / MANIFEST, LARGEST_MANIFEST + 1), "larger than"),
    "manifest of format 2": (lambda f: (f / MANIFEST).write_text('{"format": 2, "files": {}}'), "not a manifest"),
    "path outside": (list_a_path_outside, "../../etc/passwd: missing"),
    "gone": (lambda f: f.rename(f.parent / "gone"), "not a sealed folder"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_changed_folder_is_refused(folder, name):
    change, message = TAMPERINGS[name]
    seal(folder)
    change(folder)
    with pytest.raises(UserError) as error:
        verify(folder)
    assert message in str(error.value)


def test_only_the_seal_finds_a_forged_manifest(folder):
    sealed = seal(folder)
    flip_a_bit(folder)
    seal(folder)
    verify(folder)
    with pytest.raises(UserError, match=r"manifest\.json: replaced or damaged"):
        verify(folder, sealed)


def test_all_that_is_wrong_is_said_at_once_but_not_without_end(folder):
    seal(folder)
    for number in range(50):
        (folder / f"{number:02d}").touch()
    with pytest.raises(UserError) as error:
        verify(folder)
    assert "00: extra; 01: extra" in str(error.value) and "and 40 more" in str(error.value)
    assert "10: extra" not in str(error.value)
