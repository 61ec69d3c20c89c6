"""Structured logs: one JSON object a line on stderr."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

FIELDS = "fields"
"""Key of `extra` under which a record carries its own fields."""


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, and its own fields; a traceback stays inside the line."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str = "INFO") -> None:
    """Send everything to stderr as JSON lines: ours from `level` on, the libraries' from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("segraft").setLevel(level)
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [logging.NullHandler()] if name == "uvicorn.access" else [], True
        logger.setLevel(logging.ERROR)
