"""A real server in a process of its own, on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.ports import free_port

ROOT = Path(__file__).parents[2]


class Running:
    """A server that is ready.

    Attributes:
        url: of REST.
        rpc: address of gRPC.
        lines: its log so far, parsed.
    """

    def __init__(self, folder: Path, settings: dict[str, object], environment: dict[str, str]) -> None:
        rpc = free_port()
        knobs = {"http_port": 0, "grpc_port": rpc, "runtime": "torch", "threads": 1, "drain": 0.3, **settings}
        flags = [flag for key, value in knobs.items() for flag in ("-S", f"serve.{key}={json.dumps(value)}")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serving.launch", str(folder), *flags],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict] = []
        self.raw: list[str] = []
        self._ready = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._ready.wait(300), "".join(self.raw)
        assert self.process.poll() is None, "".join(self.raw)
        ready = next(line for line in self.lines if line["message"] == "ready")
        self.port, self.rpc = ready["http_port"], f"127.0.0.1:{rpc}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(timeout=120)
        self.model = ready["model"]

    def _listen(self) -> None:
        for text in self.process.stderr:
            self.raw.append(text)
            if text.startswith("{"):
                self.lines.append(json.loads(text))
                if self.lines[-1]["message"] == "ready":
                    self._ready.set()
        self._ready.set()

    def log(self, request_id: str) -> dict:
        """The log line of a request; it may be written a moment after the answer."""
        for _ in range(100):
            for line in self.lines:
                if line.get("request_id") == request_id and line["message"] == "request":
                    return line
            time.sleep(0.05)
        raise AssertionError(f"no log line of {request_id}")

    def memory(self) -> int:
        """Resident bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    def connect(self, timeout: float = 30) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        """Send a body."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.client.post(self.url + path, content=content, headers=named)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(folder: Path, environment: dict[str, str] | None = None, **settings: object):
    """A server for the block; knobs with a dot in their name are given with two underscores."""
    server = Running(folder, {key.replace("__", "."): value for key, value in settings.items()}, environment or {})
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
