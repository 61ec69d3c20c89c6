"""The zoo in one table: parameters, GFLOPs, images a second, and the mIoU that a small budget on the streets buys.

    python -m benchmarks.zoo [--archs unet,fpn] [--encoders resnet18,vit_tiny] [--steps 60]

Every pair sees the same batches of the packed target (`dvc repro augment` makes it) in the same order and starts from
random weights (or, with --weights imagenet, from ImageNet's where they can be had), so the mIoU says how fast a pair
learns from little, not how good it can become. Speed is a forward pass of one 256×512 image, in bf16 where the hardware
has it. GFLOPs count a multiply-add as two. Which pairs work at all is what `pytest -m zoo tests/models` says.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import interleaved, machine
from segraft.checkpoint import ModelCard, Preprocessing
from segraft.data.packed import PackedDataset
from segraft.device import autocast, setup
from segraft.errors import UserError
from segraft.models import check_pair, create_model, find_encoder
from segraft.models.archs import ARCHS
from segraft.models.encoders import ENCODERS
from segraft.models.weights import load_weights
from segraft.params import load_params
from segraft.training.checkpoints import CheckpointStore
from segraft.training.loop import Run
from segraft.training.monitor import Stop

SIZE = (256, 512)
PAIRS = [(arch, "resnet18") for arch in ARCHS] + [("unet", name) for name in ENCODERS if name != "resnet18"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", help="comma-separated; with --encoders, every pair of the two lists")
    parser.add_argument("--encoders")
    parser.add_argument("--steps", type=int, default=60, help="training steps a pair (0: no mIoU)")
    parser.add_argument("--weights", choices=["random", "imagenet"], default="random")
    parser.add_argument("--dataset", type=Path, default=Path("data/packed/target"), help="made by `dvc repro augment`")
    args = parser.parse_args()
    pairs = PAIRS
    if args.archs or args.encoders:
        archs = args.archs.split(",") if args.archs else list(ARCHS)
        encoders = args.encoders.split(",") if args.encoders else list(ENCODERS)
        pairs = [(arch, encoder) for arch in archs for encoder in encoders]
    table(pairs, args.steps, args.weights, args.dataset)


def table(pairs, steps, weights, dataset):
    """Print a line a pair."""
    device = setup(0)
    with tempfile.TemporaryDirectory() as name:
        packed = PackedDataset(dataset) if steps else None
        print(
            machine(), f"\n{'arch':14} {'encoder':20} {'Mparams':>8} {'GFLOPs':>8} {'images/s':>9} {'mIoU':>6}  weights"
        )
        for arch, encoder in pairs:
            try:
                check_pair(arch, encoder)
            except UserError as error:
                print(f"{arch:14} {encoder:20} {error}", flush=True)
                continue
            facts, speed = measure(arch, encoder, device)
            score, origin = train(arch, encoder, packed, steps, weights, device, Path(name)) if steps else ("", "")
            print(f"{arch:14} {encoder:20} {facts} {speed:9.1f} {score:>6}  {origin}", flush=True)


def measure(arch, encoder, device):
    """Millions of parameters and GFLOPs as text, and images a second."""
    torch.manual_seed(0)
    model = create_model(arch, encoder, 11).to(device).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.randn(1, 3, *SIZE, device=device).to(memory_format=torch.channels_last)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model(image)

    def forward():
        with torch.inference_mode(), autocast(device, "auto")():
            model(image).amax().item()

    seconds = interleaved({"forward": forward}, rounds=7)["forward"]
    params = sum(p.numel() for p in model.parameters()) / 1e6
    return f"{params:8.2f} {flops.get_total_flops() / 1e9:8.1f}", 1 / seconds


def train(arch, encoder, packed, steps, weights, device, folder):
    """The mIoU on val, in percent, after `steps` steps of finetune's settings; where the weights came from."""
    torch.manual_seed(0)
    model = create_model(arch, encoder, len(packed.card.classes))
    entry = find_encoder(encoder)
    try:
        origin, _ = load_weights(model, entry, weights)
    except UserError:
        origin = "random: no ImageNet weights here"
    knobs = {"epochs": 1, "steps_per_epoch": steps, "checkpoint_every": 0, "seed": 0, "lr": 0.001, "encoder_lr": 1.0}
    training = load_params(Path("params.yaml")).finetune.model_copy(update=knobs)
    card = ModelCard(
        arch=arch,
        encoder=encoder,
        taxonomy=packed.card.taxonomy,
        classes=packed.card.classes,
        preprocessing=Preprocessing(mean=entry.mean, std=entry.std),
    )
    store = CheckpointStore(folder / "work" / f"{arch}-{encoder}", "0" * 16)
    run = Run(model.to(device), card, packed, training, device, store)
    run.fit(Stop())
    store.close(finished=True)
    return f"{run.progress.best_miou * 100:.1f}", origin


if __name__ == "__main__":
    main()
