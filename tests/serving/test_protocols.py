"""Every protocol gives the same answer for the same picture, against a real server."""

import asyncio
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.serving.bodies import b64, binary_files, binary_uint8, encoded, ids_of, png, read_v2, v1, v2
from tests.serving.launch import CLASSES, sample

V1, V2 = "/v1/models/segraft:predict", "/v2/models/segraft/infer"


@pytest.mark.parametrize("name", ["small", "odd"])
@pytest.mark.parametrize("path", ["/predict", V1])
def test_an_image_file_in_gives_a_palette_png_out(server, expected, name, path):
    answer = server.post(path, png(name), content_type="image/png")
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(ids_of(answer.content), expected[name])
    palette = Image.open(io.BytesIO(answer.content)).getpalette()
    assert palette[:12] == [byte for color in CLASSES.values() for byte in color]


def test_v1_takes_base64_and_nested_lists(server, expected):
    body = v1({"b64": b64(png("small"))}, {"image": {"b64": b64(png("odd"))}}, sample("small").tolist())
    answer = server.post(V1, body, content_type="application/json; charset=utf-8").json()
    for name, prediction in zip(["small", "odd", "small"], answer["predictions"], strict=True):
        import base64

        np.testing.assert_array_equal(ids_of(base64.b64decode(prediction["mask"]["b64"])), expected[name])


def test_v1_gives_tensors_as_lists_and_documents_as_objects(server, expected):
    body = v1(sample("small").tolist(), outputs=["ids", "area", "topk"], k=2)
    (prediction,) = server.post(V1, body).json()["predictions"]
    np.testing.assert_array_equal(prediction["ids"], expected["small"])
    shares = np.bincount(expected["small"].ravel(), minlength=4) / expected["small"].size
    assert [c["share"] for c in prediction["area"]["classes"]] == pytest.approx(shares.tolist())
    assert np.shape(prediction["topk"]) == np.shape(prediction["topk_probability"]) == (2, 64, 96)
    np.testing.assert_array_equal(prediction["topk"][0], expected["small"])


@pytest.mark.parametrize("nested", [False, True])
def test_v2_json_tensor(server, expected, nested):
    image = sample("small")
    data = image.tolist() if nested else image.ravel().tolist()
    tensor = {"shape": list(image.shape), "datatype": "UINT8", "data": data}
    body, headers = v2(tensor, [{"name": "ids"}], id="mine")
    answer = server.client.post(server.url + V2, content=body, headers=headers)
    assert answer.json()["id"] == "mine" and answer.json()["model_name"] == "segraft"
    output, values = read_v2(answer)["ids"]
    np.testing.assert_array_equal(np.reshape(values, output["shape"])[0], expected["small"])


def test_v2_binary_tensors_stay_binary_both_ways(server, expected):
    image = np.stack([sample("small"), sample("small")[::-1]])
    asked = [{"name": "ids", "parameters": {"binary_data": True}}, {"name": "area"}]
    body, headers = v2(binary_uint8(image), asked, image.tobytes())
    found = read_v2(server.client.post(server.url + V2, content=body, headers=headers))
    assert found["ids"][1].shape == (2, 64, 96) and found["area"][0]["datatype"] == "BYTES"
    np.testing.assert_array_equal(found["ids"][1][0], expected["small"])
    assert json.loads(found["area"][1][0])["pixels"] == 64 * 96


@pytest.mark.parametrize("binary", [False, True])
def test_v2_bytes_hold_image_files_of_different_sizes(server, expected, binary):
    files = [png("small"), encoded("odd", "WEBP", lossless=True)]
    if binary:
        tensor, raw = binary_files(files)
    else:
        tensor, raw = {"shape": [2], "datatype": "BYTES", "data": [b64(file) for file in files]}, b""
    body, headers = v2(tensor, None, raw, parameters={"binary_data_output": True})
    output, masks = read_v2(server.client.post(server.url + V2, content=body, headers=headers))["mask"]
    assert output["datatype"] == "BYTES" and output["parameters"]["content_type"] == "image/png"
    for name, mask in zip(["small", "odd"], masks, strict=True):
        np.testing.assert_array_equal(ids_of(mask), expected[name])


def test_a_jpeg_is_read_as_training_reads_it(server, expected, tmp_path):
    from segraft.data.reading import read_image

    (tmp_path / "x.jpg").write_bytes(encoded("small", "JPEG", quality=90))
    image = read_image(tmp_path / "x.jpg")
    as_pixels, headers = v2(binary_uint8(image), [{"name": "ids"}], image.tobytes())
    _, ids = read_v2(server.client.post(server.url + V2, content=as_pixels, headers=headers))["ids"]
    mask = ids_of(server.post("/predict", (tmp_path / "x.jpg").read_bytes(), content_type="image/jpeg").content)
    np.testing.assert_array_equal(np.reshape(ids, mask.shape), mask)


def test_a_rotated_photo_gets_its_mask_in_the_orientation_of_its_file(server, expected):
    turned = Image.fromarray(np.rot90(sample("small"), 1))  # EXIF 6: to be turned by 90° clockwise for display
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    turned.save(file, "PNG", exif=exif)
    mask = ids_of(server.post("/predict", file.getvalue(), content_type="image/png").content)
    np.testing.assert_array_equal(mask, np.rot90(expected["small"], 1))


@pytest.mark.parametrize("output", ["overlay", "confidence", "entropy", "rle", "polygons", "area", "logits", "topk,"])
def test_each_answer_has_its_content_type(server, expected, output):
    answer = server.post(f"/predict?outputs={output.rstrip(',')}", png("small"), content_type="image/png")
    media = {"rle": "application/json", "area": "application/json", "polygons": "application/geo+json"}
    tensors = {"logits": "application/x-npy", "topk,": "application/x-npy"}
    assert answer.headers["content-type"] == (media | tensors).get(output, "image/png")
    if output == "logits":
        np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), expected["small.logits"], atol=0.05)
    elif answer.headers["content-type"] == "image/png":
        assert Image.open(io.BytesIO(answer.content)).size == (96, 64)
    elif "json" in answer.headers["content-type"]:
        assert answer.json()


def test_kserve_s_rest_client(server, expected):
    from kserve import InferenceRESTClient, InferInput, InferRequest
    from kserve.inference_client import RESTConfig
    from kserve.protocol.infer_type import RequestedOutput

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
        image = InferInput("image", [1, 64, 96, 3], "UINT8")
        image.set_data_from_numpy(sample("small")[None])
        wanted = [RequestedOutput("ids", {"binary_data": True})]
        request = InferRequest("segraft", [image], request_id="r1", request_outputs=wanted)
        assert await client.is_server_ready(server.url) and await client.is_model_ready(server.url, "segraft")
        answer = await client.infer(server.url, request, model_name="segraft")
        v1_client = InferenceRESTClient(RESTConfig(protocol="v1", timeout=60))
        old = await v1_client.infer(server.url, json.loads(v1({"b64": b64(png("small"))}, outputs=["ids"])), "segraft")
        return answer, old

    answer, old = asyncio.run(ask())
    np.testing.assert_array_equal(answer.outputs[0].as_numpy()[0], expected["small"])
    np.testing.assert_array_equal(old["predictions"][0]["ids"], expected["small"])


def test_kserve_s_grpc_client(server, expected):
    from kserve import InferenceGRPCClient, InferInput, InferRequest
    from kserve.protocol.infer_type import RequestedOutput

    async def ask():
        client = InferenceGRPCClient(server.rpc, timeout=60)
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("segraft")
        image = InferInput("image", [1, 64, 96, 3], "UINT8")
        image.set_data_from_numpy(sample("small")[None])
        wanted = [RequestedOutput("ids"), RequestedOutput("topk")]
        tensors = InferRequest("segraft", [image], request_outputs=wanted, parameters={"k": 2})
        files = InferInput("image", [2], "BYTES")
        files.set_data_from_numpy(np.array([png("small"), encoded("odd", "PNG")], object))
        answers = [await client.infer(tensors), await client.infer(InferRequest("segraft", [files]))]
        typed = InferInput("image", [64, 96, 3], "UINT8", sample("small").ravel().tolist())
        answers.append(await client.infer(InferRequest("segraft", [typed], request_outputs=[RequestedOutput("ids")])))
        await client.close()
        return answers

    tensors, files, typed = asyncio.run(ask())
    np.testing.assert_array_equal(tensors.outputs[0].as_numpy()[0], expected["small"])
    assert [output.name for output in tensors.outputs] == ["ids", "topk"]
    assert tensors.outputs[1].as_numpy().shape == (1, 2, 64, 96)
    masks = files.outputs[0].as_numpy()
    np.testing.assert_array_equal(ids_of(masks[1]), expected["odd"])
    np.testing.assert_array_equal(typed.outputs[0].as_numpy()[0], expected["small"])


def test_every_answer_names_request_and_model(server):
    answer = server.post("/predict", png("small"), content_type="image/png", x_request_id="abc-1")
    assert answer.headers["x-request-id"] == "abc-1" and answer.headers["x-segraft-model"] == server.model
    assert server.model.startswith("segraft/unregistered;sha256=") and len(server.model.split("=")[1]) == 64
    refused = server.post("/predict", b"", content_type="image/png", x_request_id="not ok\u00e9".encode("latin-1"))
    assert refused.headers["x-segraft-model"] == server.model and len(refused.headers["x-request-id"]) == 32
    line = server.log("abc-1")
    assert line["status"] == 200 and line["protocol"] == "raw" and line["images"] == 1
    assert {"read_ms", "decode_ms", "queue_ms", "predict_ms", "encode_ms"} <= set(line)


def test_metadata_names_inputs_and_outputs_that_work(server):
    found = server.client.get(f"{server.url}/v2/models/segraft").json()
    assert {i["datatype"] for i in found["inputs"]} == {"BYTES", "UINT8"}
    names = [{"name": o["name"]} for o in found["outputs"]]
    image = sample("small")
    body, headers = v2(binary_uint8(image), names, image.tobytes(), parameters={"binary_data_output": True})
    answered = read_v2(server.client.post(server.url + V2, content=body, headers=headers))
    described = {o["name"]: o for o in found["outputs"]}
    assert set(answered) == set(described)
    for name, (output, _) in answered.items():
        assert output["datatype"] == described[name]["datatype"]
        fits = [d in (-1, n) for d, n in zip(described[name]["shape"], output["shape"], strict=True)]
        assert all(fits), name
    assert server.client.get(f"{server.url}/v2").json()["extensions"] == ["binary_tensor_data"]


def test_metrics_and_drift(server):
    server.post("/predict", png("small"), content_type="image/png")
    server.post("/predict", png("small"), content_type="image/png")
    text = server.client.get(f"{server.url}/metrics").text
    for line in (
        'segraft_requests_total{protocol="raw",status="200"}',
        'segraft_stage_seconds_count{stage="predict"}',
        "segraft_batch_size_count",
        'segraft_class_pixels_total{class_name="road"}',
        "segraft_confidence_count",
        "segraft_requests_in_progress 0.0",
    ):
        assert line in text
    drift = server.client.get(f"{server.url}/drift").json()
    assert drift["reference"] is None and "segraft export" in drift["why"] and drift["images"] > 0
