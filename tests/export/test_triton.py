"""The Triton repository: its config is a valid ModelConfig, and says of the graph what the graph says of itself."""

import json
import re
import shutil
import subprocess
import sys

import onnx
import pytest

from segraft.checkpoint import read_card
from segraft.errors import UserError
from segraft.export.triton import Triton, config, write_repository
from segraft.serving.runtimes.card import read_serving_card

TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([A-Za-z_][A-Za-z0-9_]*)|(-?\d+)|([{}\[\]:,]))')
DTYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


def tokens(text):
    place = 0
    while text[place:].strip():
        match = TOKEN.match(text, place)
        assert match, f"not protobuf text: {text[place : place + 40]!r}"
        place = match.end()
        yield match.group().strip()


class Reader:
    """Protobuf's text format, strictly; a message is a dict of lists, as every field may be repeated."""

    def __init__(self, text):
        self.tokens = [*tokens(text), None]

    def take(self, *wanted):
        token = self.tokens.pop(0)
        assert not wanted or token in wanted, f"{token}, not one of {wanted}"
        return token

    def message(self, end):
        fields = {}
        while self.tokens[0] != end:
            name = self.take()
            assert re.fullmatch(r"[a-z_]+", name), name
            if self.tokens[0] == ":":
                self.take(":")
            values = self.list() if self.tokens[0] == "[" else [self.value()]
            fields.setdefault(name, []).extend(values)
        self.take(end)
        return fields

    def list(self):
        self.take("[")
        values = [self.value()]
        while self.take(",", "]") == ",":
            values.append(self.value())
        return values

    def value(self):
        token = self.take()
        if token == "{":
            return self.message("}")
        return json.loads(token) if re.fullmatch(r'".*"|-?\d+', token) else token


def parse(text):
    return Reader(text).message(None)


def test_the_config_says_what_the_graph_is(exported, tmp_path):
    folder = write_repository(exported, tmp_path / "repository", Triton(max_batch=4, delay=500))
    found = parse((folder / "config.pbtxt").read_text())
    assert found["name"] == ["segraft"] and found["max_batch_size"] == [4]
    assert found["dynamic_batching"] == [{"preferred_batch_size": [2, 4], "max_queue_delay_microseconds": [500]}]
    graph = onnx.load(folder / "1" / "model.onnx").graph
    for field, values in (("input", graph.input), ("output", graph.output)):
        for said, is_ in zip(found[field], values, strict=True):
            shape = [dim.dim_value or -1 for dim in is_.type.tensor_type.shape.dim]
            assert (said["name"], said["data_type"]) == ([is_.name], [DTYPES[is_.type.tensor_type.elem_type]])
            assert said["dims"] == shape[1:] and shape[0] == -1, "Triton adds the batch itself"
    facts = {of["key"][0]: of["value"][0]["string_value"][0] for of in found["parameters"]}
    assert facts["stride"] == "32" and json.loads(facts["classes"]) == ["ground", "disc"]
    assert facts["weights_sha256"] == read_card(exported).weights_sha256


def test_tensorrt_is_an_accelerator_of_gpus(exported):
    text = config(read_card(exported), read_serving_card(exported), Triton(tensorrt="FP16"))
    (accelerator,) = parse(text)["optimization"][0]["execution_accelerators"][0]["gpu_execution_accelerator"]
    assert accelerator["name"] == ["tensorrt"]
    assert {"key": ["precision_mode"], "value": ["FP16"]} in accelerator["parameters"]
    assert "optimization" not in parse(config(read_card(exported), read_serving_card(exported), Triton()))


@pytest.mark.parametrize("how", [Triton(), Triton(tensorrt="FP16", max_batch=1, instances=2)])
def test_triton_s_own_message_takes_it(exported, how):
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="no tritonclient installed")
    from google.protobuf import text_format

    message = text_format.Parse(config(read_card(exported), read_serving_card(exported), how), pb2.ModelConfig())
    assert message.backend == "onnxruntime" and message.input[0].data_type == pb2.TYPE_UINT8


@pytest.mark.parametrize("broken", ["name: x y", 'a: "', "a { b: 1", "a: [1 2]", "a: 1 }"])
def test_the_reader_is_strict(broken):
    with pytest.raises((AssertionError, TypeError, json.JSONDecodeError)):
        parse(broken)


def test_versions_stand_side_by_side_and_a_bad_name_or_folder_is_an_error(exported, tmp_path):
    write_repository(exported, tmp_path, Triton(version=3))
    folder = write_repository(exported, tmp_path, Triton())
    assert write_repository(exported, tmp_path, Triton()) == folder
    assert [p.name for p in sorted(folder.iterdir())] == ["1", "3", "config.pbtxt"]
    with pytest.raises(UserError, match=r"has no model\.onnx; run `segraft export`"):
        write_repository(exported.parent / "finetuned", tmp_path, Triton())
    with pytest.raises(UserError, match="letters, digits"):
        write_repository(exported, tmp_path, Triton(name="a/b"))
    shutil.copytree(exported, tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx: missing"):
        write_repository(tmp_path / "copy", tmp_path / "other", Triton())
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["copy", "segraft"], "no folder of a model without a version"


def test_the_command(exported, tmp_path):
    command = [sys.executable, "-m", "segraft", "triton", str(exported), str(tmp_path)]
    done = subprocess.run([*command, "--tensorrt", "FP16"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tensorrt" in (tmp_path / "segraft" / "config.pbtxt").read_text()
    done = subprocess.run([*command, "--max-batch", "0"], capture_output=True, text=True)
    assert done.returncode == 65 and "--max-batch 0: must be 1 or more" in done.stderr
