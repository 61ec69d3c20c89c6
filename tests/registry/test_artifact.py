import numpy as np
import pytest
import yaml

from segraft.checkpoint import WEIGHTS
from segraft.errors import UserError
from segraft.integrity import seal
from segraft.registry.artifact import FILES, FLAVORS, LARGEST_MLMODEL, MLMODEL, pack, verify_artifact


def test_an_artifact_holds_data_alone_and_mlflow_reads_it(make_artifact, example):
    from mlflow.models import Model

    folder, digest = make_artifact()
    verify_artifact(folder, digest)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == FILES
    model = Model.load(str(folder))
    assert model.flavors == FLAVORS and "code" not in model.flavors["python_function"]
    (images,), (masks,) = model.signature.inputs.inputs, model.signature.outputs.inputs
    assert (images.type, images.shape) == (np.uint8, (-1, -1, -1, 3))
    assert (masks.type, masks.shape) == (np.uint8, (-1, -1, -1))
    assert np.array_equal(model.load_input_example(str(folder)), example)


def test_the_same_model_has_the_same_seal_and_another_has_another(make_artifact, example, tmp_path):
    _, digest = make_artifact(0)
    assert pack(tmp_path / "model-0", example, tmp_path / "again") == digest
    assert make_artifact(1)[1] != digest
    assert pack(tmp_path / "model-0", example + 1, tmp_path / "other example") != digest


def test_a_damaged_model_folder_is_not_packed(make_model, example, tmp_path):
    folder = make_model()
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(UserError, match="damaged: its sha256"):
        pack(folder, example, tmp_path / "artifact")


def flavor(**changes):
    return {"python_function": FLAVORS["python_function"] | changes}


FORGED = {
    "other loader": yaml.safe_dump({"flavors": flavor(loader_module="evil")}),
    "code beside the loader": yaml.safe_dump({"flavors": flavor(code="code")}),
    "model from code": yaml.safe_dump({"flavors": flavor(model_code_path="evil.py")}),
    "another flavor": yaml.safe_dump({"flavors": {**FLAVORS, "pytorch": {"model_data": "data"}}}),
    "no flavor": "{}",
    "10^30 flavors": "flavors:\n  a0: &a0 x\n"
    + "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 31)),
    "a list": "[]",
    "a python object": "!!python/object/apply:os.system ['touch canary']",
    "not YAML": "flavors: {",
    "deep": "[" * 20_000,
    "huge": "#" * (LARGEST_MLMODEL + 1),
    "not text": "\x00",
}


@pytest.mark.parametrize("name", FORGED)
def test_even_a_sealed_artifact_may_name_no_code(make_artifact, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder, _ = make_artifact()
    (folder / MLMODEL).write_text(FORGED[name])
    with pytest.raises(UserError, match="MLmodel"):
        verify_artifact(folder, seal(folder))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["code/evil.py", "data/weights.pth", "requirements.txt", ".git/x"])
def test_even_a_sealed_artifact_may_hold_no_other_file(make_artifact, name):
    folder, _ = make_artifact()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(UserError, match="not a model of segraft"):
        verify_artifact(folder, seal(folder))
