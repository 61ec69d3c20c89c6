"""The playground: one self-contained page beside the endpoint, on which a person tries the model."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template

from segraft.checkpoint import ModelCard
from segraft.params import Serve

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """A page that is ready to be sent.

    Attributes:
        body: HTML in UTF-8.
        headers: its content security policy: this script, this style, this server, and nothing else.
    """

    body: bytes
    headers: dict[str, str]


def render(card: ModelCard, settings: Serve, stamp: str) -> Page:
    """The page of one model.

    Args:
        card: its classes and colours.
        settings: its name and what the server accepts.
        stamp: what the header X-Segraft-Model says.
    """
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    formats = [f"image/{kind.lower()}" for kind in settings.limits.formats]
    facts = {
        "name": settings.name,
        "classes": [{"name": c.name, "color": c.color} for c in card.classes],
    }
    version, _, digest = stamp.partition(";sha256=")
    page = Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        style=style,
        script=script,
        facts=json.dumps(facts).replace("<", "\\u003c"),
        model=html.escape(version),
        digest=html.escape(digest[:12]),
        formats=html.escape(", ".join(settings.limits.formats)),
        accept=html.escape(",".join(formats)),
        megabytes=settings.limits.body_mb,
    )
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{key} {value}" for key, value in policy.items()),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
        "vary": "accept",
    }
    return Page(page.encode(), headers)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
