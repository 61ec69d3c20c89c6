"""The one way to refuse a request: a status and a sentence, which each protocol puts in its own form."""

from __future__ import annotations

LONGEST = 500


class Refused(Exception):
    """A request that gets an error for an answer.

    Args:
        status: HTTP status; 4xx: the client can mend it, 503 and 504: it may try again.
        message: what the client reads: one line, never a trace, a path or a class of ours.
        retry_after: seconds after which to try again.
        allow: methods that the path takes, of a 405.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None, allow: str = "") -> None:
        super().__init__(message)
        self.status, self.retry_after, self.allow = status, retry_after, allow
        self.message = " ".join(message.split())[:LONGEST]
