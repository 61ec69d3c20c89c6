"""OpenVINO without its telemetry, which is on by default; NNCF's goes with it."""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # cannot be imported: they take a stub

import openvino as ov  # noqa: E402

__all__ = ["ov"]
