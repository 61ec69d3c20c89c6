"""What is known of the request that is being answered: its id, its deadline, and what it cost so far."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from segraft.serving.errors import Refused

ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


@dataclass
class Call:
    """One request, whatever its protocol.

    Attributes:
        id: the client's X-Request-Id if it is a decent one, else ours.
        protocol: "rest" or "grpc" as it came in; refined to "v1", "v2" or "raw" when it is read.
        query: parameters of the URL.
        deadline: time.monotonic() after which nobody waits for the answer.
        stages: seconds by stage.
        facts: what else the log line says.
        started: time.perf_counter() when it came.
    """

    id: str
    protocol: str = "rest"
    query: Mapping[str, str] = field(default_factory=dict)
    deadline: float = float("inf")
    stages: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - started

    @property
    def server_timing(self) -> str:
        """The header Server-Timing: milliseconds by stage, and of all so far, as W3C's Server Timing has it."""
        stages = self.stages | {"total": time.perf_counter() - self.started}
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in stages.items())

    def give(self, seconds: float) -> None:
        """Bring the deadline forward to so many seconds from now."""
        self.deadline = min(self.deadline, time.monotonic() + max(0.0, seconds))


current: ContextVar[Call] = ContextVar("call")


def request_id(proposed: str | None) -> str:
    """The client's id if it is safe to log and to send back, else a new one."""
    return proposed if proposed and ID.fullmatch(proposed) else uuid.uuid4().hex


def this_call() -> Call:
    """The request that this task answers; a new one where there is none, as in a warm-up."""
    try:
        return current.get()
    except LookupError:
        return Call(request_id(None))


@asynccontextmanager
async def in_time(call: Call) -> AsyncIterator[None]:
    """A block that ends by the call's deadline.

    Raises:
        Refused: it did not.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(loop.time() + call.deadline - time.monotonic()) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Refused(504, "the deadline passed before the answer was ready") from None
