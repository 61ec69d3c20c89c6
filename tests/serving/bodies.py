"""Requests and answers in the forms of the protocols, written here by hand so that they check the server's own."""

import base64
import io
import json
import struct

import numpy as np
from PIL import Image

from tests.serving.launch import sample

JSON_LENGTH = "inference-header-content-length"


def encoded(name: str, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    Image.fromarray(sample(name)).save(file, kind, **how)
    return file.getvalue()


def png(name: str) -> bytes:
    return encoded(name, "PNG")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def v1(*instances, **parameters) -> bytes:
    return json.dumps({"instances": instances, **({"parameters": parameters} if parameters else {})}).encode()


def v2(tensor: dict, outputs=None, raw: bytes = b"", **more) -> tuple[bytes, dict[str, str]]:
    """A V2 body and its headers; with `raw` in binary."""
    document = {"inputs": [{"name": "image", **tensor}], **more}
    if outputs is not None:
        document["outputs"] = outputs
    text = json.dumps(document).encode()
    if not raw:
        return text, {"content-type": "application/json"}
    return text + raw, {"content-type": "application/octet-stream", JSON_LENGTH: str(len(text))}


def nested(depth: int, key: str = "") -> str:
    """JSON: lists, or objects with one key, in one another; the server's parser takes 1,024 of them."""
    opens, closes = (f'{{"{key}":', "}") if key else ("[", "]")
    return opens * depth + "1" + closes * depth


WRONG = ("[]", "{}", "[[]]", '{"a": 1}', nested(1000), nested(1000, "image"))
"""JSON that may stand instead of what was meant."""


def replaced(document, by: str):
    """As JSON, the document once for each of its values, with that one replaced by other JSON."""
    for one in _replaced(document):
        yield json.dumps(one).replace('"?"', by).encode()


def _replaced(document):
    yield "?"
    if isinstance(document, dict):
        for key, value in document.items():
            yield from (document | {key: other} for other in _replaced(value))
    elif isinstance(document, list) and document:
        yield from ([other, *document[1:]] for other in _replaced(document[0]))


def binary_uint8(image: np.ndarray) -> dict:
    return {"shape": list(image.shape), "datatype": "UINT8", "parameters": {"binary_data_size": image.nbytes}}


def binary_files(files: list[bytes]) -> tuple[dict, bytes]:
    raw = b"".join(struct.pack("<I", len(file)) + file for file in files)
    return {"shape": [len(files)], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}, raw


def read_v2(response) -> dict[str, tuple[dict, object]]:
    """Output name → (its description, array or list of bytes or JSON data)."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(JSON_LENGTH, len(response.content)))
    document, at, found = json.loads(response.content[:length]), length, {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        value = output.get("data")
        if size is not None:
            raw, at = response.content[at : at + size], at + size
            value = split(raw) if output["datatype"] == "BYTES" else array(raw, output)
        found[output["name"]] = (output, value)
    assert at == len(response.content)
    return found


def array(raw: bytes, output: dict) -> np.ndarray:
    kinds = {"UINT8": np.uint8, "FP32": np.float32}
    return np.frombuffer(raw, kinds[output["datatype"]]).reshape(output["shape"])


def split(raw: bytes) -> list[bytes]:
    files, at = [], 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        files.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return files


def ids_of(file: bytes) -> np.ndarray:
    """The values of a palette PNG."""
    image = Image.open(io.BytesIO(file))
    assert image.mode == "P"
    return np.asarray(image)
