"""Weights from elsewhere: ImageNet's, a file's, a URL's, a registered model's, put where they belong."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segraft.errors import UserError
from segraft.models.encoders import Encoder
from segraft.models.sources import imagenet, read_file
from segraft.training.transfer import HEAD, Graft

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]
WRAPPERS = ("module", "_orig_mod", "model", "network", "net", "student", "ema")
"""What trainers put before every name."""


def load_weights(model: nn.Module, entry: Encoder, weights: str) -> tuple[str, list[Graft]]:
    """Fill a model's encoder, and of its decoder what fits, from weights that were made elsewhere.

    Args:
        model: changed in place; one of the zoo.
        entry: its encoder's entry in the zoo.
        weights: "random" (nothing is loaded), "imagenet", a model folder, a registered model (`models:/NAME@ALIAS`,
            `models:/NAME/VERSION`, `mlflow:NAME@ALIAS`), or the path or URL (s3://, https://, …) of a .safetensors, a
            torch checkpoint or a Darknet .weights file. A checkpoint may hold an encoder, a classifier or a whole
            network, in the names of torchvision, timm, segmentation_models_pytorch or MMSegmentation.

    Returns:
        Where the weights came from, and what became of each tensor of the model and of the file. The classifier is
        always skipped, for the file does not say which classes its rows stand for.

    Raises:
        UserError: the weights cannot be had, or do not fill the encoder.
    """
    if weights == "random":
        return "random", []
    state, origin = _find(model, entry, weights)
    own = model.state_dict()
    given = rename(state, own)
    report = [_fit(name, tensor, given) for name, tensor in own.items()]
    report += [Graft(name, "skipped", "not in this model") for name in given if name not in own]
    _encoder_is_full(report, origin, entry)
    model.load_state_dict(
        own | {g.tensor: given[g.tensor].to(own[g.tensor].dtype) for g in report if g.outcome == "kept"}
    )
    return origin, report


def _fit(name: str, tensor: Tensor, given: State) -> Graft:
    if name not in given:
        return Graft(name, "skipped", "not in the file")
    if name.startswith(HEAD):
        return Graft(name, "skipped", "the file does not say which classes it stands for")
    if given[name].shape != tensor.shape:
        return Graft(name, "mismatched", f"{tuple(given[name].shape)} is not {tuple(tensor.shape)}")
    return Graft(name, "kept")


def _encoder_is_full(report: list[Graft], origin: str, entry: Encoder) -> None:
    encoder = [g for g in report if g.tensor.startswith("encoder.") and g.why != "not in this model"]
    wrong = [g for g in encoder if g.outcome == "mismatched"]
    missing = [g for g in encoder if g.outcome == "skipped" and not g.tensor.endswith("num_batches_tracked")]
    if missing or wrong:
        first = (wrong or missing)[0]
        raise UserError(
            f"model.weights: {origin}: does not fit {entry.name}: {len(missing)} of {len(encoder)} tensors missing, "
            f"{len(wrong)} of another shape (first: {first.tensor.removeprefix('encoder.')}: {first.why})"
        )


def _find(model: nn.Module, entry: Encoder, weights: str) -> tuple[State, str]:
    if weights == "imagenet":
        return imagenet(entry)
    if weights.startswith(("models:/", "mlflow:")):
        return _registered(f"models:/{weights.removeprefix('models:/').removeprefix('mlflow:').lstrip('/')}")
    if "://" in weights:
        return _remote(weights, model), weights
    return _local(Path(weights), model, weights), weights


def _local(path: Path, model: nn.Module, named: str) -> State:
    if path.is_dir():
        from segraft import checkpoint

        return checkpoint.load_weights(path, checkpoint.read_card(path))
    return read_file(path, model.get_submodule("encoder"), named)


def _registered(uri: str) -> tuple[State, str]:
    """A registered model of MLFLOW_TRACKING_URI (or the local mlflow.db), verified file by file before it is read."""
    from segraft.checkpoint import load_weights as load_folder
    from segraft.checkpoint import read_card
    from segraft.params import Tracking
    from segraft.registry import open_registered

    tracking = Tracking(uri="", experiment="segraft", required=True, timeout=30)
    with tempfile.TemporaryDirectory() as scratch:
        folder = open_registered(uri, tracking, Path(scratch))
        card = read_card(folder)
        return load_folder(folder, card), f"{uri} {card.weights_sha256[:12]}"


def _remote(url: str, model: nn.Module) -> State:
    import fsspec

    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / url.partition("?")[0].rstrip("/").rpartition("/")[2]
        try:
            files, path = fsspec.url_to_fs(url)
            files.get_file(path, str(target))
        except Exception as error:  # each store's client has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"model.weights: {url}: could not be fetched ({type(error).__name__}: {reason})") from None
        return _local(target, model, url)


def rename(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> State:
    """Foreign tensors under this project's names.

    Args:
        state: tensors as a file names them.
        own: the model's state dict; names are compared without dots, for timm's feature extractors write
            `stages_0` where its classifiers write `stages.0`.
    """
    state = _split_mit(_unwrapped(state))
    prefix = next((p for p in ("encoder.", "backbone.") if any(name.startswith(p) for name in state)), "")
    known = {_bare(name): name for name in own}
    return {known.get(_bare(_placed(name, prefix)), name): tensor for name, tensor in state.items()}


def _unwrapped(state: Mapping[str, Tensor]) -> State:
    """Without the first word of the names, as long as they share it and it is a trainer's."""
    first = {name.partition(".")[0] for name in state}
    if len(first) == 1 and first <= set(WRAPPERS):
        return _unwrapped({name.partition(".")[2]: tensor for name, tensor in state.items()})
    return dict(state)


def _placed(name: str, prefix: str) -> str:
    """Under encoder. what is the encoder's, under decoder. what torchvision calls a network's classifier."""
    if not prefix or name.startswith(prefix):
        return f"encoder.{name.removeprefix(prefix)}"
    return re.sub(r"^classifier\.", "decoder.", name)


def _bare(name: str) -> str:
    """A name without what libraries put around the same layers."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        rest = re.sub(r"^((model|features)\.)+", "", rest)
    elif part == "decoder":
        rest = rest.removeprefix("layers.")
    return f"{part}.{rest.replace('.', '_')}"


MIT = (
    (r"\.0\.projection\.", "patch_embed{}.proj."),
    (r"\.0\.norm\.", "patch_embed{}.norm."),
    (r"\.1\.(\d+)\.attn\.attn\.out_proj\.", r"block{}.\1.attn.proj."),
    (r"\.1\.(\d+)\.ffn\.layers\.0\.", r"block{}.\1.mlp.fc1."),
    (r"\.1\.(\d+)\.ffn\.layers\.1\.", r"block{}.\1.mlp.dwconv.dwconv."),
    (r"\.1\.(\d+)\.ffn\.layers\.4\.", r"block{}.\1.mlp.fc2."),
    (r"\.1\.(\d+)\.", r"block{}.\1."),
    (r"\.2\.", "norm{}."),
)
"""MMSegmentation's names within `backbone.layers.N` → those of SegFormer's authors."""


def _split_mit(state: State) -> State:
    """MMSegmentation's MixVisionTransformer as its authors wrote it: q apart from k and v, linear layers not 1×1."""
    if not any(re.match(r"backbone\.layers\.\d\.0\.projection", name) for name in state):
        return state
    result: State = {}
    for name, tensor in state.items():
        match = re.match(r"backbone\.layers\.(\d)(\..*)", name)
        if not match:
            result[name] = tensor
            continue
        stage, rest = str(int(match[1]) + 1), match[2]
        packed = re.fullmatch(r"\.1\.(\d+)\.attn\.attn\.in_proj_(weight|bias)", rest)
        if packed:
            width = len(tensor) // 3
            block = f"backbone.block{stage}.{packed[1]}.attn"
            result[f"{block}.q.{packed[2]}"], result[f"{block}.kv.{packed[2]}"] = tensor[:width], tensor[width:]
            continue
        pattern, becomes = next((p, b) for p, b in MIT if re.match(p, rest))
        if re.search(r"ffn\.layers\.[04]\.weight", rest):
            tensor = tensor.flatten(1)
        result["backbone." + re.sub(f"^{pattern}", becomes.replace("{}", stage), rest)] = tensor
    return result
