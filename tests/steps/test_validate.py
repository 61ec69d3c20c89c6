"""The step validate, through the door and from the command line."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image

from segraft.data.manifest import FILES, read_manifest, schema
from segraft.errors import UserError
from segraft.params import load_params
from segraft.steps import run
from tests.data.blobs import make_blobs
from tests.data.validation_run import PARAMS, given, validate


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    blobs = make_blobs(folder)
    return blobs, validate(blobs, folder / "out")


def test_manifest_is_a_row_a_sample_in_the_order_of_the_listing(clean):
    _, outcome = clean
    frame = read_manifest(outcome.manifest, "target")
    assert frame["split"].tolist() == ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    assert frame["image"][0] == "images/train/00.png" and frame["mask"][0] == "masks/train/00.png"
    assert set(zip(frame["height"], frame["width"], strict=True)) == {(96, 128)}
    pixels = frame["class_pixels"].map(sum) + frame["ignore_pixels"]
    assert (pixels == 96 * 128).all()
    assert frame.notna().all(axis=None)
    assert pq.read_schema(outcome.manifest / FILES["target"]).equals(schema())


def test_no_source_is_an_empty_manifest(clean):
    _, outcome = clean
    assert pq.read_schema(outcome.manifest / FILES["source"]).equals(schema())
    assert len(read_manifest(outcome.manifest, "source")) == 0
    assert list(outcome.told["datasets"]) == ["target"]


def test_a_second_run_writes_the_same_manifest(clean, tmp_path):
    blobs, outcome = clean
    again = validate(blobs, tmp_path)
    assert (
        again.manifest.joinpath(FILES["target"]).read_bytes() == outcome.manifest.joinpath(FILES["target"]).read_bytes()
    )


def test_errors_publish_the_report_and_no_manifest(tmp_path):
    blobs = make_blobs(tmp_path)
    for index in range(7):
        blobs.image(f"train/{index:02}").write_bytes(b"")
    blobs.mask("val/00").unlink()
    outcome = validate(blobs, tmp_path / "out")
    lines = outcome.message.splitlines()
    assert lines[0] == "8 findings in the data to fix first:"
    assert f"{blobs.mask('val/00')}: mask: no such file; add the file, or remove its partner" in outcome.message
    assert sum("0 bytes" in line for line in lines) == 5 and "2 more of the kind empty_file" in outcome.message
    assert lines[-1] == f"report: {outcome.report}"
    assert not outcome.manifest.exists() and not list(outcome.report.parent.glob(".*"))
    assert outcome.told["errors"] == 8 and not outcome.told["passed"]


def test_strict_stops_at_warnings(tmp_path):
    blobs = make_blobs(tmp_path)
    image = Image.open(blobs.image("train/00"))
    image.save(blobs.image("train/00"), "JPEG", quality=95)
    assert validate(blobs, tmp_path / "lenient").message == ""
    assert (
        "the content is JPEG, the name says PNG" in validate(blobs, tmp_path / "strict", "validate.strict=true").message
    )


def test_metrics_are_counts(clean):
    _, outcome = clean
    assert outcome.metrics == {"samples": 24, "errors": 0, "warnings": 0}


def test_command_line_names_the_file_and_exits_with_65(tmp_path):
    blobs = make_blobs(tmp_path)
    blobs.image("test/03").write_bytes(b"<html>")
    sets = ["data.source.format=none", "data.target.format=folder", "data.target.taxonomy=blobs"]
    command = [sys.executable, "-m", "segraft", "validate", "--params", PARAMS, *(f"-S{one}" for one in sets)]
    paths = {"source": blobs.root, "target": blobs.root, "taxonomies": blobs.taxonomies}
    paths |= {"manifest": tmp_path / "manifest", "report": tmp_path / "report"}
    done = subprocess.run(
        [*command, *(part for key, path in paths.items() for part in (f"--{key}", path))],
        capture_output=True,
        text=True,
        cwd=PARAMS.parent,
    )
    assert done.returncode == 65, done.stderr
    assert f"{blobs.image('test/03')}: image: no PNG" in done.stderr and "Traceback" not in done.stderr
    assert json.loads((tmp_path / "report/validate.json").read_text())["errors"] == 1


def test_without_a_source_its_folder_need_not_be_there(clean, tmp_path):
    blobs, _ = clean
    sections, paths = given(blobs, tmp_path)
    assert run("validate", sections, paths | {"source": tmp_path / "nowhere"})["samples"] == 24
    with pytest.raises(UserError, match="nowhere: not found; step validate reads it as --target"):
        run("validate", sections, paths | {"target": tmp_path / "nowhere"})


def test_importing_the_step_imports_nothing_heavy():
    heavy = "{'numpy', 'pandas', 'pyarrow', 'cv2', 'PIL', 'great_expectations', 'torch', 'jinja2'}"
    subprocess.run(
        [sys.executable, "-c", f"import sys, segraft.steps.validate; assert not {heavy} & set(sys.modules)"], check=True
    )


@pytest.mark.slow
def test_camvid_is_clean_but_for_the_sequences_that_its_splits_cut(camvid, tmp_path):
    params = load_params(
        PARAMS, ["data.source.format=none", "data.target.format=camvid", "data.target.taxonomy=camvid"]
    )
    paths = {"source": camvid, "target": camvid, "taxonomies": PARAMS.parent / "data/taxonomies"}
    paths |= {"manifest": tmp_path / "manifest", "report": tmp_path / "report"}
    run("validate", {"data": params.data, "validate": params.section("validate")}, paths)
    told = json.loads((tmp_path / "report/validate.json").read_text())
    found = [(one["rule"], one["severity"], one["file"] or one["found"].split()[1]) for one in told["findings"]]
    assert found == [
        ("near_twin", "warning", "test/0001TP_008550.jpg"),  # a second after the last frame of train
        ("divided_sequence", "warning", "0001TP"),
        ("divided_sequence", "warning", "0016E5"),
    ]
