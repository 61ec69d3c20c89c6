"""What Kubeflow is told: a component a step, with the step's names. See components/finetune.py for the pattern."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from kfp import dsl

component = functools.partial(dsl.component, base_image="segraft", install_kfp_package=False)
"""A lightweight Python component on our own image, which holds all that it needs; pipelines put the image's name in."""


def load(name: str) -> Any:
    """The component `name`, the function of that name in components/{name}.py."""
    return getattr(importlib.import_module(f"components.{name}"), name)
