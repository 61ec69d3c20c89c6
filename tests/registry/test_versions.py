import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pytest
import yaml

from segraft.checkpoint import CARD, WEIGHTS, load_weights, read_card, sha256
from segraft.errors import UserError
from segraft.integrity import MANIFEST, seal
from segraft.params import Tracking
from segraft.registry import open_registered
from segraft.registry.artifact import FLAVORS, MLMODEL
from segraft.registry.versions import CHALLENGER, SEAL, aliases, fetch, publish
from segraft.tracking import Record, connect
from tests.mortal import Killed, Mortal


def stored(tracker, name, version) -> Path:
    """Where the local store keeps a version's artefact."""
    return Path(urlparse(tracker.client.get_model_version(name, version).source).path)


def test_a_version_carries_its_facts_and_comes_back_as_it_went(tracker, run, make_artifact, tmp_path):
    artifact, digest = make_artifact()
    version = publish(tracker, "facts", run, artifact, digest, {"arch": "unet", "classes": '{"road": "#804080"}'})
    found = tracker.client.get_model_version("facts", version)
    assert (found.tags[SEAL], found.tags["arch"], found.run_id) == (digest, "unet", run)
    assert aliases(tracker, "facts") == {CHALLENGER: version}
    model = fetch(tracker, "facts", version, tmp_path / "fetched")
    assert (model / WEIGHTS).read_bytes() == (artifact / "data" / WEIGHTS).read_bytes()
    assert model.is_relative_to(tmp_path), "loaded from a copy of our own, which nobody changes after the check"


def test_a_store_in_a_folder_whose_name_has_a_hash(make_artifact, tmp_path):
    folder = tmp_path / "c#"
    folder.mkdir()
    artifact, digest = make_artifact()
    tracking = Tracking(uri=f"sqlite:///{folder}/mlflow.db", experiment="e", required=True, timeout=1)
    with connect(tracking) as tracker:
        run = tracker.log(Record("run", "key", 1.0, 2.0))
        version = publish(tracker, "m", run, artifact, digest, {})
        assert fetch(tracker, "m", version, tmp_path / "here").is_dir()


def test_one_content_is_one_version_and_the_last_is_the_challenger(tracker, run, make_artifact, tmp_path):
    first, second = make_artifact(0), make_artifact(1)
    assert publish(tracker, "twice", run, *first, {"x": "1"}) == "1"
    assert publish(tracker, "twice", run, *second, {}) == "2"
    assert aliases(tracker, "twice")[CHALLENGER] == "2"
    assert publish(tracker, "twice", run, *first, {"x": "2"}) == "1"
    assert aliases(tracker, "twice")[CHALLENGER] == "1"
    assert tracker.client.get_model_version("twice", "1").tags["x"] == "2"
    fetch(tracker, "twice", "2", tmp_path / "second"), fetch(tracker, "twice", "1", tmp_path / "first")


@pytest.mark.parametrize("calls", range(6))
def test_a_kill_leaves_no_half_of_a_version(tracker, run, make_artifact, calls):
    artifact, digest = make_artifact()
    name = f"killed-{calls}"
    with pytest.raises(Killed):
        publish(replace(tracker, client=Mortal(tracker.client, calls)), name, run, artifact, digest, {"x": "1"})
    assert publish(tracker, name, run, artifact, digest, {"x": "1"}) == "1"
    (version,) = tracker.client.search_model_versions(f"name = '{name}'")
    assert version.tags == {SEAL: digest, "x": "1"}


def test_an_upload_that_went_wrong_is_not_registered(tracker, run, make_artifact):
    artifact, digest = make_artifact()
    os.truncate(artifact / "data" / WEIGHTS, 100)
    with pytest.raises(UserError, match="100 bytes, sealed with"):
        publish(tracker, "wrong", run, artifact, digest, {})
    assert not tracker.client.search_model_versions("name = 'wrong'")


def flip_a_bit(folder: Path):
    path = folder / "data" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link(folder: Path):
    path = folder / "data" / WEIGHTS
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def pickled(path: Path, canary: Path):
    """A pickle that makes the canary when it is loaded."""
    path.write_bytes(b"cposix\nmkdir\n(V" + str(canary).encode() + b"\ntR.")


def with_code(folder: Path, canary: Path, **flavor):
    (folder / "code").mkdir()
    code = f"import pathlib; pathlib.Path({str(canary)!r}).touch()\ndef _load_pyfunc(path): return None\n"
    (folder / "code/evil.py").write_text(code)
    mlmodel = yaml.safe_load((folder / MLMODEL).read_text())
    mlmodel["flavors"] = {"python_function": FLAVORS["python_function"] | flavor}
    (folder / MLMODEL).write_text(yaml.safe_dump(mlmodel))


TAMPERINGS = {
    "bit flip": lambda folder, canary: flip_a_bit(folder),
    "truncated": lambda folder, canary: os.truncate(folder / "data" / WEIGHTS, 1000),
    "missing": lambda folder, canary: (folder / "data" / CARD).unlink(),
    "extra": lambda folder, canary: (folder / "data/extra").touch(),
    "hidden": lambda folder, canary: (folder / ".hidden").touch(),
    "in .git": lambda folder, canary: ((folder / ".git").mkdir(), (folder / ".git/hook").touch()),
    "link": lambda folder, canary: link(folder),
    "pipe": lambda folder, canary: os.mkfifo(folder / "pipe"),
    "pickle for weights": lambda folder, canary: pickled(folder / "data" / WEIGHTS, canary),
    "huge header": lambda folder, canary: (folder / "data" / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 62)),
    "code": lambda folder, canary: with_code(folder, canary, code="code"),
    "code and loader": lambda folder, canary: with_code(folder, canary, code="code", loader_module="evil"),
    "other card": lambda folder, canary: (folder / "data" / CARD).write_text("{}"),
    "all gone": lambda folder, canary: shutil.rmtree(folder),
}


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_tampered_with_is_refused_before_anything_runs(
    tracking, tracker, run, make_artifact, tmp_path, name, resealed
):
    artifact, digest = make_artifact()
    model = f"{name}-{resealed}".replace(" ", "-")
    version = publish(tracker, model, run, artifact, digest, {})
    folder, canary = stored(tracker, model, version), tmp_path / "canary"
    TAMPERINGS[name](folder, canary)
    if resealed and folder.exists() and name not in ("link", "pipe"):
        seal(folder)  # who tampers also writes a manifest; the version's tag is out of reach
    with pytest.raises(UserError, match=f"models:/{model}/{version}: refused"):
        fetch(tracker, model, version, tmp_path / "fetched")
    with pytest.raises(UserError, match=f"models:/{model}/{version}: refused"):
        publish(tracker, model, run, artifact, digest, {})
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    import pickle

    pickled(tmp_path / "evil", tmp_path / "canary")
    with (tmp_path / "evil").open("rb") as file:
        pickle.load(file)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["pickle for weights", "huge header", "truncated"])
def test_who_forges_every_hash_still_runs_nothing(tracker, run, make_artifact, tmp_path, name):
    """Weights, card, manifest and tag are all the attacker's: only safetensors stands between, and it holds no code."""
    from safetensors import SafetensorError

    version = publish(tracker, name.split()[0], run, *make_artifact(), {})
    folder, canary = stored(tracker, name.split()[0], version), tmp_path / "canary"
    TAMPERINGS[name](folder, canary)
    card = json.loads((folder / "data" / CARD).read_text()) | {"weights_sha256": sha256(folder / "data" / WEIGHTS)}
    (folder / "data" / CARD).write_text(json.dumps(card))
    tracker.client.set_model_version_tag(name.split()[0], version, SEAL, seal(folder))
    model = fetch(tracker, name.split()[0], version, tmp_path / "fetched")
    with pytest.raises((UserError, SafetensorError)):
        load_weights(model, read_card(model))
    assert not canary.exists()


def test_a_version_that_segraft_did_not_register_is_refused(tracker, run, make_artifact, tmp_path):
    version = publish(tracker, "foreign", run, *make_artifact(), {})
    tracker.client.delete_model_version_tag("foreign", version, SEAL)
    with pytest.raises(UserError, match="has no tag sha256: segraft did not register it"):
        fetch(tracker, "foreign", version, tmp_path / "fetched")


@pytest.fixture
def closed(tracking, make_artifact):
    """A store with a model in it that no one holds open."""
    from segraft.tracking import Record, connect

    with connect(tracking) as tracker:
        run = tracker.log(Record("run", "closed", 1.0, 2.0))
        publish(tracker, "closed", run, *make_artifact(), {})
    return tracking


@pytest.mark.parametrize("uri", ["models:/closed@challenger", "models:/closed/1"])
def test_a_registered_model_is_opened_by_alias_or_version(closed, uri, tmp_path):
    folder = open_registered(uri, closed, tmp_path / "opened")
    assert read_card(folder).taxonomy == "two" and MANIFEST not in os.listdir(folder)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/closed@none", "closed has no alias none"),
        ("models:/nothing@champion", "not in the registry"),
        ("models:/closed/99", "not in the registry"),
        ("models:/closed", "expected models:/NAME@ALIAS"),
        ("runs:/abc/model", "expected models:/NAME@ALIAS"),
        ("models:/../x/1", "expected models:/NAME@ALIAS"),
    ],
)
def test_a_wrong_uri_is_named(closed, uri, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_registered(uri, closed, tmp_path / "opened")
