"""Which fields of a manifest a typed client does not know."""

from __future__ import annotations


def unknown(given, known, path=""):
    """Paths that are lost, or altered, on the way through the client's own classes."""
    if isinstance(given, dict):
        kept = known if isinstance(known, dict) else {}
        return [
            p
            for k, v in given.items()
            for p in ([f"{path}/{k}"] if k not in kept else unknown(v, kept[k], f"{path}/{k}"))
        ]
    if isinstance(given, list):
        return [p for i, v in enumerate(given) for p in unknown(v, known[i], f"{path}[{i}]")]
    return [] if given == known else [path]
