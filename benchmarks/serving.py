"""The server against stock KServe and against the bare model, all started here and asked in turn.

`python -m benchmarks.serving MODEL` prints, as ratios of medians:
1. V2 binary UINT8 in and out around a model that does nothing: stock KServe against ours;
2. a JPEG in and a PNG out: our server against the same calls (decode, predict, encode) without a server;
3. the same against the documentation's predictor (PyTorch fp32, JSON in, JSON class ids, or logits, out);
4. images/s at concurrency 8 against the bare loop; and the seconds from start to ready.
MODEL is a model folder; run `segraft export` on it first for its best runtime.
"""

import argparse
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.common import interleaved, machine
from segraft.data.streets.render import render
from tests.ports import free_port

SIZE = (512, 1024)


@contextmanager
def running(command: list[str], ready: str, grace: float, **options):
    """A server's process, once `ready` answers 200; at the end it has `grace` seconds to drain."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
    try:
        while True:
            assert process.poll() is None, f"{' '.join(command)} ended with {process.returncode}"
            try:
                if httpx.get(ready, timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def peer(kind: str, *more: str):
    """A server of benchmarks.serving_peers: (its URL, seconds until it was ready)."""
    port, started = free_port(), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.serving_peers", kind, str(port), *more]
    quiet = os.environ | {"KSERVE_LOGLEVEL": "ERROR"}
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/v2/models/segraft/ready", 20, stdout=subprocess.DEVNULL, env=quiet):
        yield url, time.perf_counter() - started


def scene() -> np.ndarray:
    """(512, 1024, 3) uint8 RGB."""
    return render(1, (0,), SIZE).image


def jpeg(image: np.ndarray) -> bytes:
    """As a camera would send it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def binary(client: httpx.Client, url: str, image: np.ndarray):
    """A V2 request with a binary tensor each way, encoded once."""
    parameters = {"binary_data_size": image.nbytes}
    tensor = {"name": "image", "shape": [1, *image.shape], "datatype": "UINT8", "parameters": parameters}
    document = {"inputs": [tensor], "outputs": [{"name": "ids", "parameters": {"binary_data": True}}]}
    text = json.dumps(document).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(text))}
    content, size = text + image.tobytes(), image.shape[0] * image.shape[1]

    def ask():
        answer = client.post(f"{url}/v2/models/segraft/infer", content=content, headers=headers)
        assert answer.status_code == 200 and len(answer.content) > size, answer.text[:300]

    return ask


def noops(rounds: int) -> None:
    """Part 1."""
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=120))
        (stock, _), (ours, _) = (stack.enter_context(peer(kind)) for kind in ("stock-noop", "noop"))
        for size in ((360, 480), SIZE):
            image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
            work = {"stock": binary(client, stock, image), "ours": binary(client, ours, image)}
            times = interleaved(work, rounds)
            show(f"V2 binary {size[0]}×{size[1]}, no-op", times["stock"], times["ours"], "stock KServe 0.21")


def show(what: str, peer_seconds: float, seconds: float, name: str) -> None:
    """One line."""
    ratio = peer_seconds / seconds
    print(f"{what:<46}{1e3 * seconds:9.1f} ms   {name}: {1e3 * peer_seconds:9.1f} ms   {ratio:7.2f}×", flush=True)


def bare(folder: Path):
    """Decode, predict and encode, as the server does, without one."""
    from segraft.params import load_params
    from segraft.serving.answers import palette_png
    from segraft.serving.images import decode, inspect
    from segraft.serving.runtime import open_runtime

    runtime, limits = open_runtime(folder), load_params(Path("params.yaml")).serve.limits
    print(f"runtime: {runtime.name}")

    def answer(data: bytes) -> bytes:
        image = decode(inspect(data, limits))
        return palette_png(runtime.predict(image[None]).ids[0], runtime.card)

    return answer


def real(folder: Path, rounds: int, throughput: int) -> None:
    """Parts 2 to 4."""
    image = scene()
    data, alone = jpeg(image), bare(folder)
    document = json.dumps({"instances": [image.tolist()]}).encode()
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=600))
        (ours, seconds), (naive, _), (logits, _) = (
            stack.enter_context(peer(kind, str(folder))) for kind in ("ours", "naive", "naive-logits")
        )
        print(f"start to ready: {seconds:.1f} s")

        def raw() -> bytes:
            answer = client.post(f"{ours}/predict", content=data, headers={"content-type": "image/jpeg"})
            assert answer.status_code == 200, answer.text
            return answer.content

        def v1(url: str):
            headers = {"content-type": "application/json"}
            return lambda: client.post(f"{url}/v1/models/segraft:predict", content=document, headers=headers).json()

        assert raw() == alone(data), "the server answers what the bare call does"
        times = interleaved({"bare": lambda: alone(data), "ours": raw}, rounds)
        show("JPEG → PNG, 512×1024, one at a time", times["bare"], times["ours"], "bare call")
        times = interleaved({"ours": raw, "naive": v1(naive), "logits": v1(logits)}, max(2, rounds // 5))
        show("JPEG → PNG, 512×1024", times["naive"], times["ours"], "fp32 eager, JSON class ids")
        show("JPEG → PNG, 512×1024", times["logits"], times["ours"], "fp32 eager, JSON logits")
        saturation(raw, lambda: alone(data), throughput)


def saturation(ours, alone, count: int) -> None:
    """Part 4: in turns, for one machine does both."""
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            started = time.perf_counter()
            for _ in range(count):
                alone()
            rates["bare"].append(count / (time.perf_counter() - started))
            started = time.perf_counter()
            list(pool.map(lambda _: ours(), range(count)))
            rates["ours"].append(count / (time.perf_counter() - started))
    bare_rate, rate = (statistics.median(rates[name]) for name in ("bare", "ours"))
    print(f"at concurrency 8: {rate:.1f} images/s, {100 * rate / bare_rate:.0f} % of the bare loop's {bare_rate:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=Path("models/finetuned"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--throughput", type=int, default=24, help="images a turn at saturation")
    args = parser.parse_args()
    print(machine())
    noops(args.rounds)
    real(args.model, args.rounds, args.throughput)


if __name__ == "__main__":
    main()
