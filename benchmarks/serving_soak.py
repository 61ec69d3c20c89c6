"""The server under load and under fire: `python -m benchmarks.serving_soak load|fuzz|sigterm MODEL`.

load     a mix of protocols at saturation for --seconds: p50, p99, refusals (503), failures (must be none), memory
fuzz     --count broken bodies over every protocol, seeded: all must get a 4xx in one JSON line (or an answer, where one
         JSON value was replaced that may not matter); memory before and after
sigterm  --count times a server under load gets SIGTERM: accepted requests that got no answer (must be none)
"""

import argparse
import collections
import json
import random
import signal
import struct
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil

from benchmarks.serving import jpeg, running, scene
from tests.ports import free_port
from tests.serving.bodies import WRONG, replaced

JSON_LENGTH = "inference-header-content-length"


@contextmanager
def server(folder: Path, *flags: str):
    """`segraft serve`: (URL, gRPC address, process)."""
    ports = [free_port(), free_port()]
    knobs = [f"serve.http_port={ports[0]}", f"serve.grpc_port={ports[1]}", *flags]
    arguments = [part for knob in knobs for part in ("-S", knob)]
    command = [sys.executable, "-m", "segraft", "serve", str(folder), *arguments]
    url = f"http://127.0.0.1:{ports[0]}"
    with running(command, f"{url}/v2/health/ready", 60) as process:
        yield url, f"127.0.0.1:{ports[1]}", process


def megabytes(process) -> float:
    return psutil.Process(process.pid).memory_info().rss / 1e6


def good(size=(360, 480)):
    """(path, content, headers) of good requests in each REST protocol."""
    import base64

    image = np.ascontiguousarray(scene()[: size[0], : size[1]])
    photo = jpeg(image)
    text = json.dumps({"instances": [{"b64": base64.b64encode(photo).decode()}], "parameters": {"outputs": ["area"]}})
    tensor = {"name": "image", "shape": list(image.shape), "datatype": "UINT8"}
    document = {"inputs": [tensor | {"parameters": {"binary_data_size": image.nbytes}}]}
    head = json.dumps(document | {"parameters": {"binary_data_output": True}, "outputs": [{"name": "ids"}]}).encode()
    element = struct.pack("<I", len(photo)) + photo
    parameters = {"binary_data_size": len(element)}
    files = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": parameters}]}
    start = json.dumps(files).encode()
    binary = {"content-type": "application/octet-stream"}
    return [
        ("/predict", photo, {"content-type": "image/jpeg"}),
        ("/predict?outputs=polygons&min_area=50", photo, {"content-type": "image/jpeg"}),
        ("/v1/models/segraft:predict", text.encode(), {"content-type": "application/json"}),
        ("/v2/models/segraft/infer", head + image.tobytes(), binary | {JSON_LENGTH: str(len(head))}),
        ("/v2/models/segraft/infer", start + element, binary | {JSON_LENGTH: str(len(start))}),
    ]


def rpc_request(shape, datatype: str, raw: bytes, model: str = "segraft"):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype=datatype, shape=shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[raw])


def rpc_call(channel, request, timeout: float = 120):
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as rpc

    return rpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=timeout)


def load(folder: Path, seconds: float, clients: int) -> bool:
    """Clients that ask one after the other, each in another protocol."""
    statuses, times, lock = collections.Counter(), [], threading.Lock()
    with server(folder) as (url, address, process):
        requests, end = good(), time.monotonic() + seconds
        element = struct.pack("<I", len(requests[0][1])) + requests[0][1]

        def ask(index: int) -> None:
            with httpx.Client(timeout=120) as client, grpc.insecure_channel(address) as channel:
                while time.monotonic() < end:
                    started = time.perf_counter()
                    status = one(client, channel, index)
                    with lock:
                        statuses[status] += 1
                        times.append(time.perf_counter() - started)
                    index += 1

        def one(client, channel, index: int) -> str:
            try:
                if index % 6 == 5:
                    rpc_call(channel, rpc_request([1], "BYTES", element))
                    return "200"
                path, content, headers = requests[index % 6]
                return str(client.post(url + path, content=content, headers=headers).status_code)
            except grpc.RpcError as error:
                return "503" if error.code() == grpc.StatusCode.UNAVAILABLE else error.code().name
            except httpx.HTTPError as error:
                return type(error).__name__

        before = [megabytes(process)]
        threads = [threading.Thread(target=ask, args=(index,)) for index in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(max(1.0, seconds / 10))
            before.append(megabytes(process))
        p50, p99 = np.quantile(times, [0.5, 0.99])
        print(f"{len(times)} requests in {seconds:.0f} s by {clients} clients: {dict(statuses)}")
        print(f"p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms; resident MB over time: {[round(m) for m in before]}")
    return set(statuses) <= {"200", "503"}


class Fuzzer:
    """Good requests, broken in one seeded way each."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.good = good((64, 96))

    def rest(self):
        """(path, content, headers) that must get a 4xx; and whether it may be answered as well."""
        path, content, headers = self.random.choice(self.good)
        how = self.random.choice([self.cut, self.noise, self.header, self.document, self.nonsense, self.replace])
        return how(path, content, dict(headers)), how == self.replace

    def cut(self, path, content, headers):
        return path, content[: self.random.randrange(max(1, len(content) * 9 // 10))], headers

    def noise(self, path, content, headers):
        start = self.random.choice([b"\0", b"{", b"[", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b""])
        return path, start + self.random.randbytes(self.random.randrange(2000)), headers

    def header(self, path, content, headers):
        if JSON_LENGTH in headers:
            wrong = ["xyz", "-1", str(len(content) + 1), "99999999999", "1.5", "", "0", "1"]
            return path, content, headers | {JSON_LENGTH: self.random.choice(wrong)}
        return path, content, headers | {"content-type": self.random.choice(["text/plain", "a/b", "application/pdf"])}

    def document(self, path, content, headers):
        value = self.value(0)
        text = json.dumps(value).encode()
        path = self.random.choice(["/v1/models/segraft:predict", "/v2/models/segraft/infer"])
        return path, text, {"content-type": "application/json"}

    def value(self, depth: int):
        """JSON with the protocols' own keys, and the wrong things behind them."""
        leaf = [None, True, -1, 0, 3, 1e308, 2**63, "", "x", "data:image/png;base64,AAAA", "http://127.0.0.1/", [], {}]
        if depth > 4 or self.random.random() < 0.3:
            return self.random.choice(leaf)
        if self.random.random() < 0.4:
            return [self.value(depth + 1) for _ in range(self.random.randrange(4))]
        keys = [
            "instances",
            "inputs",
            "outputs",
            "parameters",
            "name",
            "shape",
            "datatype",
            "data",
            "b64",
            "image",
            "id",
        ]
        return {self.random.choice(keys): self.value(depth + 1) for _ in range(self.random.randrange(4))}

    def replace(self, path, content, headers):
        """One value, whole or leaf, of a good JSON document is something else."""
        photo = json.loads(self.good[2][1])
        tensor = {"name": "image", "shape": [32, 32, 3], "datatype": "UINT8", "data": [7] * 3072}
        pixels = {"inputs": [tensor], "outputs": [{"name": "area"}], "parameters": {"min_area": 2}}
        path, document = self.random.choice([(self.good[2][0], photo), (self.good[3][0], pixels)])
        bodies = list(replaced(document, self.random.choice(WRONG)))
        return path, self.random.choice(bodies), {"content-type": "application/json"}

    def nonsense(self, path, content, headers):
        return path + self.random.choice(["?outputs=x", "?alpha=9", "?k=-1", "x", "/", "?outputs=&k=1"]), b"", headers

    def rpc(self):
        """A gRPC request that must be refused."""
        shape = [self.random.choice([-1, 0, 1, 3, 64, 2**31, 2**62]) for _ in range(self.random.randrange(6))]
        datatype = self.random.choice(["UINT8", "BYTES", "FP32", "FP16", "x", ""])
        raw = self.random.randbytes(self.random.randrange(64))
        return rpc_request(shape, datatype, raw, self.random.choice(["segraft", "segraft", "segraft", "other", ""]))


REFUSED = ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED")


def fuzz(folder: Path, count: int, seed: int) -> bool:
    """Broken bodies, one after the other, on connections that are kept where the server keeps them."""
    fuzzer, statuses, wrong = Fuzzer(seed), collections.Counter(), []
    with server(folder) as (url, address, process):
        with httpx.Client(timeout=60) as client, grpc.insecure_channel(address) as channel:
            memory = []
            for index in range(count):
                if index % 5 == 4:
                    status, fine = fire_rpc(channel, fuzzer.rpc())
                    sent = "gRPC"
                else:
                    sent, may_be_answered = fuzzer.rest()
                    status, fine = fire(client, url, *sent)
                    fine = fine or (may_be_answered and status == "200")
                statuses[status] += 1
                if not fine:
                    wrong.append((index, status, sent))
                if index in (count // 5, count - 1):
                    memory.append(megabytes(process))
            path, content, headers = good((64, 96))[0]
            serving = client.post(url + path, content=content, headers=headers).status_code
    print(f"{count} broken bodies, seed {seed}: {dict(statuses)}; {len(wrong)} not refused as they should be")
    print(f"resident MB after a fifth and at the end: {[round(m, 1) for m in memory]}; then a good request: {serving}")
    for index, status, sent in wrong[:10]:
        print(f"  number {index}: {status}: {str(sent)[:200]}")
    return not wrong and serving == 200 and memory[1] - memory[0] < 20


def fire(client, url: str, path: str, content: bytes, headers: dict[str, str]) -> tuple[str, bool]:
    answer = client.post(url + path, content=content, headers=headers)
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError):
        error = ""
    one_line = bool(error) and "\n" not in error and "Traceback" not in error
    return str(answer.status_code), 400 <= answer.status_code < 500 and one_line


def fire_rpc(channel, request) -> tuple[str, bool]:
    try:
        rpc_call(channel, request)
    except grpc.RpcError as error:
        return error.code().name, error.code().name in REFUSED
    return "OK", False


def sigterm(folder: Path, count: int, clients: int) -> bool:
    """A request counts as accepted once it was sent on a connection that the server took."""
    answered, lost, ends = 0, 0, set()
    for turn in range(count):
        results, end = stopped_under_load(folder, clients, 0.5 + turn * 0.05)
        answered, lost = answered + results["200"], lost + results.total() - results["200"]
        ends.add(end)
        print(f"SIGTERM {turn + 1}: {dict(results)}", flush=True)
    print(f"{answered} answered, {lost} lost in {count} stops; exit statuses {sorted(ends)}")
    return lost == 0 and ends == {0}


def stopped_under_load(folder: Path, clients: int, after: float) -> tuple[collections.Counter, int]:
    """What became of the requests of clients that ask until the door is closed; and the exit status."""
    results: collections.Counter = collections.Counter()
    path, content, headers = good()[0]
    with server(folder, "serve.drain=1.0") as (url, _, process):

        def ask() -> None:
            with httpx.Client(timeout=120) as client:
                while True:
                    try:
                        status = str(client.post(url + path, content=content, headers=headers).status_code)
                    except httpx.ConnectError:
                        return
                    except httpx.HTTPError as error:
                        status = repr(error)
                    results.update([status])

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(after)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        return results, process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "fuzz", "sigterm"])
    parser.add_argument("model", type=Path, nargs="?", default=Path("models/finetuned"))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--count", type=int, help="bodies (10,000) or stops (20)")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if args.what == "load":
        fine = load(args.model, args.seconds, args.clients)
    elif args.what == "fuzz":
        fine = fuzz(args.model, args.count or 10_000, args.seed)
    else:
        fine = sigterm(args.model, args.count or 20, args.clients)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
