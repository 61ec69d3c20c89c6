"""Reading weights: ImageNet's from whoever has them, and files that others wrote; no code in a file is ever run."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft.errors import UserError
from segraft.models.encoders import Encoder

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]
CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "model_ema")
"""Where trainers keep the tensors (MMSegmentation and Lightning: state_dict; timm, DeiT, DINO: the others)."""

DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    LookupError,
    AssertionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch raises on a file that is none of its own, or a damaged one."""


def imagenet(entry: Encoder) -> tuple[State, str]:
    """ImageNet weights: those of an installed package, or else the library's, which downloads them once.

    Raises:
        UserError: nobody has them, or they cannot be downloaded.
    """
    if entry.weights is None:
        raise UserError(
            f"model.weights: imagenet: no library has weights for {entry.name}; say random, or give a file: "
            "for Darknet the author's .weights"
        )
    if entry.package:
        try:
            return _packaged(entry), f"package {entry.package}"
        except ImportError:
            pass
    try:
        return _downloaded(entry)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: imagenet: {entry.name} could not be downloaded ({type(error).__name__}); "
            "give the path of a weights file, say random, or take efficientnet_lite0, whose weights are installed"
        ) from error


def _downloaded(entry: Encoder) -> tuple[State, str]:
    name = entry.weights_name or entry.name
    if entry.weights == "torchvision":
        from torchvision.models import get_model_weights

        weights = get_model_weights(name).DEFAULT
        return weights.get_state_dict(progress=True, check_hash=True), f"torchvision {weights}"
    if entry.weights == "smp":
        from segmentation_models_pytorch.encoders import get_encoder

        return get_encoder(name, weights="imagenet").state_dict(), f"segmentation_models_pytorch {name}"
    import timm

    return timm.create_model(name, pretrained=True).state_dict(), f"timm {name}"


def _packaged(entry: Encoder) -> State:
    """The author's tensors under timm's names: the two list the same tensors in the same order."""
    import importlib

    import timm
    import torch

    package = importlib.import_module(entry.package)
    (files,) = (getattr(package, name) for name in dir(package) if name.endswith("ModelFile"))
    theirs = torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(entry.weights_name).state_dict()
    assert [t.shape for t in theirs.values()] == [t.shape for t in ours.values()], f"{entry.package}: another network"
    return dict(zip(ours, theirs.values(), strict=True))


def read_file(path: Path, encoder: nn.Module, named: str) -> State:
    """The tensors of a foreign file.

    Args:
        path: a .safetensors, a torch checkpoint, or a Darknet .weights file.
        encoder: the network that a Darknet file is for: its tensors have no names.
        named: what the user called the file.

    Raises:
        UserError: there is no such file, it holds no tensors, or loading it would run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".weights":
            return read_darknet(path, encoder)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"model.weights: {named}: no such file; say imagenet, random, a path or a URL") from None
    except (SafetensorError, *DAMAGED) as error:
        raise UserError(
            f"model.weights: {named}: not a readable weights file: tensors alone are read, never code ({_why(error)}); "
            "get the file again, or save its state dict alone"
        ) from None
    return _tensors(content, named)


def _why(error: Exception) -> str:
    """What torch found, in one line, without its advice to run what is in the file."""
    found = str(error).rpartition("WeightsUnpickler error: ")[2].partition("\n")[0].partition(". Please use ")[0]
    return found[:200] or "it ends too early"


def _tensors(content: Any, named: str) -> State:
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    import torch

    tensors = {k: t for k, t in content.items() if isinstance(t, torch.Tensor)} if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(f"model.weights: {named}: holds no state dict (a dict of tensors)")
    return tensors


def read_darknet(path: Path, encoder: nn.Module) -> State:
    """A Darknet .weights file: float32 in the order of the layers (BatchNorm β, γ, mean, variance, then the kernel).

    The classifier, which comes last, is left out.

    Raises:
        ValueError: the file ends before the encoder does.
    """
    import numpy as np
    import torch
    from torch import nn

    header = np.fromfile(path, np.int32, 3)
    if len(header) < 3:
        raise ValueError("shorter than its header")
    seen = 8 if header[0] * 10 + header[1] >= 2 else 4
    values = torch.from_numpy(np.fromfile(path, np.float32, offset=12 + seen))
    names = {module: name for name, module in encoder.named_modules()}
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    slopes = {m.negative_slope for m in encoder.modules() if isinstance(m, nn.LeakyReLU)}
    if len(convs) != len(norms) or slopes != {0.1}:
        raise ValueError("a Darknet file is for darknet19: no other encoder here computes what Darknet does")
    state: State = {}
    for conv, norm in zip(convs, norms, strict=True):
        bn = ((norm, name) for name in ("bias", "weight", "running_mean", "running_var"))
        for module, name in (*bn, (conv, "weight")):
            like = getattr(module, name)
            if len(values) < like.numel():
                raise ValueError(f"ends before {names[module]}")
            state[f"{names[module]}.{name}"] = values[: like.numel()].view_as(like).clone()
            values = values[like.numel() :]
    return state
