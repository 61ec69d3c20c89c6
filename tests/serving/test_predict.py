"""`segraft predict`: with a server and without, the same files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segraft.__main__ import EXIT_DATA, EXIT_IO, EXIT_PIPE, main
from segraft.commands.predict import find_jobs
from segraft.errors import UserError
from tests.ports import free_port
from tests.serving.bodies import ids_of, png
from tests.serving.launch import CLASSES
from tests.serving.running import ROOT
from tests.serving.test_client import answering, error


@pytest.fixture
def images(tmp_path):
    """Two images, one of them in a folder of its own, beside a file that is none."""
    folder = tmp_path / "photos"
    (folder / "night").mkdir(parents=True)
    (folder / "a.png").write_bytes(png("small"))
    (folder / "night" / "b.PNG").write_bytes(png("odd"))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_s_masks_lie_as_its_images_do(server, expected, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(images), "--url", server.url, "--out", str(out), "--overlay"]) == 0
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == ["masks/a.png", "masks/night/b.png", "overlays/a.png", "overlays/night/b.png"]
    np.testing.assert_array_equal(ids_of((out / "masks/a.png").read_bytes()), expected["small"])
    np.testing.assert_array_equal(ids_of((out / "masks/night/b.png").read_bytes()), expected["odd"])
    ids, picture = expected["small"], np.asarray(Image.open(images / "a.png"), int)
    colors = np.asarray(list(CLASSES.values()))[ids]
    np.testing.assert_allclose(np.asarray(Image.open(out / "overlays/a.png")), (colors + picture) / 2, atol=1)
    counts = sum(np.bincount(expected[name].ravel(), minlength=4) for name in ("small", "odd"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    order = np.argsort(-counts, kind="stable")
    assert [(name, int(n.replace(",", ""))) for name, _, n in rows] == [(list(CLASSES)[i], counts[i]) for i in order]
    assert float(rows[0][1].rstrip("%")) == pytest.approx(100 * counts.max() / counts.sum(), abs=0.005)


def test_a_model_folder_needs_no_server_and_says_the_same(server, expected, images, model_folder, tmp_path, capsys):
    argv = [
        "predict",
        str(images / "a.png"),
        "--json",
        "--out",
        str(tmp_path / "out"),
        "--params",
        str(ROOT / "params.yaml"),
    ]
    assert main([*argv, "--model", str(model_folder)]) == 0
    local = json.loads(capsys.readouterr().out)
    np.testing.assert_array_equal(ids_of(Path(local["mask"]).read_bytes()), expected["small"])
    assert main([*argv, "--url", server.url]) == 0
    remote = json.loads(capsys.readouterr().out)
    assert local["classes"] == remote["classes"] and remote["model"] == server.model
    assert [c["class"] for c in remote["classes"]] == list(CLASSES) and "overlay" not in remote


def test_one_bad_image_is_named_and_the_others_are_written(server, images, tmp_path, capsys):
    out = tmp_path / "out"
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    status = main(["predict", str(images), str(images / "notes.txt"), "--url", server.url, "--out", str(out)])
    said = capsys.readouterr().err
    assert status == EXIT_DATA and "2 of 4 images failed" in said and "Traceback" not in said
    assert f"{images / 'notes.txt'}: not an image, or a damaged one; send JPEG, PNG, WEBP" in said
    assert f"{images / 'broken.jpg'}: " in said
    assert sorted(path.name for path in (out / "masks").rglob("*.png")) == ["a.png", "b.png"]


def test_without_a_server_nothing_is_written(images, tmp_path, capsys):
    url, out = f"http://127.0.0.1:{free_port()}", tmp_path / "out"
    assert main(["predict", str(images), "--url", url, "--out", str(out)]) == EXIT_DATA
    assert f"{url}: no server answers" in capsys.readouterr().err and not out.exists()


def test_an_image_that_the_server_fails_on_does_not_end_the_others(images, tmp_path, capsys):
    with answering(lambda _: (500, {}, error("the model failed on this request"))) as (url, times):
        assert main(["predict", str(images), "--url", url, "--out", str(tmp_path / "out")]) == EXIT_DATA
    said = capsys.readouterr().err
    assert "2 of 2 images failed" in said and said.count("the model failed on this request") == 2 and len(times) >= 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file"),
        (["nothing*.png"], "nothing*.png: no such file"),
        (["empty"], "empty: no image in this folder"),
        (["empty/x.txt", "--header", "token"], "--header token: expected NAME:VALUE"),
        (["empty/x.txt", "--header", "a b:é"], "header"),
        (["empty/x.txt", "--header", ": x"], "not an HTTP header"),
        (["empty/x.txt", "--model", "empty"], "not a model folder"),
        ([""], "IMAGE: empty; name a file"),
    ],
)
def test_mistakes_are_named(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/x.txt").touch()
    assert main(["predict", *arguments, "--params", str(ROOT / "params.yaml")]) == EXIT_DATA
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_a_timeout_is_a_time(seconds, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "x.jpg", "--timeout", seconds])
    assert "expected more than 0 seconds" in capsys.readouterr().err


def test_a_file_in_the_place_of_a_folder_is_named(server, images, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["predict", str(images), "--url", server.url, "--out", str(tmp_path / "out")]) == EXIT_IO
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'}" in said and "Traceback" not in said


def test_who_reads_may_have_enough(server, images, tmp_path):
    command = [sys.executable, "-m", "segraft", "predict", str(images), "--url", server.url, "--json"]
    command += ["--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == EXIT_PIPE and "Traceback" not in said and "Exception" not in said


def test_patterns_files_and_folders_name_each_image_once(images, tmp_path):
    out = tmp_path / "out"
    jobs = find_jobs([str(images / "**" / "*.[pP]*"), str(images / "a.png")], out)
    assert [job.image for job in jobs] == [images / "a.png", images / "night" / "b.PNG"]
    assert [job.mask for job in jobs] == [out / "masks/a.png", out / "masks/b.png"]


def test_answers_of_an_earlier_call_are_no_images(images):
    out = images / "out"
    for name in ("masks/a.png", "overlays/a.png"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"")
    assert [job.image for job in find_jobs([str(images)], out)] == [images / "a.png", images / "night" / "b.PNG"]
    assert [job.image for job in find_jobs([str(out / "masks")], out)] == [out / "masks" / "a.png"]


def test_two_images_never_become_one_mask(images, tmp_path):
    (images / "a.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png: both would become"):
        find_jobs([str(images)], tmp_path)
