"""A model on every runtime against eager PyTorch in fp32: speed, mIoU, agreement; interleaved, medians.

    python -m benchmarks.runtimes [--model models/finetuned] [--dataset data/packed/target] [--size 512 1024]

Both sides get uint8 RGB and give uint8 trainIds. With --size images and labels are resized.
The peer is what a documentation-style predictor does: fp32, NCHW, normalise, forward, argmax.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import machine
from segraft.checkpoint import load_model
from segraft.data.packed import Packed, PackedDataset
from segraft.export.measure import measure
from segraft.export.run import Spread
from segraft.export.run import export as run_export
from segraft.params import Export
from segraft.serving.runtime import Prediction, open_runtime
from segraft.serving.runtimes import FILES

GOAL = 8.0
NAMES = tuple(name for name in FILES if name != "torch-compiled")


class Peer:
    """Eager PyTorch, fp32, channels first."""

    name = "eager fp32"
    stride = 1

    def __init__(self, folder: Path) -> None:
        self.network, self.card = load_model(folder)
        how = self.card.preprocessing
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (how.mean, how.std))

    @torch.inference_mode()
    def predict(self, images, logits=False):
        batch = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
        found = self.network((batch / 255 - self.mean) / self.std)
        return Prediction(found.argmax(1).to(torch.uint8).numpy(), None)


def resized(sample, size):
    shape = size[::-1]
    image = cv2.resize(np.ascontiguousarray(sample.image), shape, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(np.ascontiguousarray(sample.mask), shape, interpolation=cv2.INTER_NEAREST)
    return Packed(sample.id, sample.group, sample.tags, image, mask)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/finetuned"))
    parser.add_argument("--dataset", type=Path, default=Path("data/packed/target"))
    parser.add_argument("--size", type=int, nargs=2, help="height and width (as they are)")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--runtimes", nargs="+", default=list(NAMES), choices=list(FILES))
    args = parser.parse_args()
    gate = {"max_miou_loss": 0.2, "min_agreement": 0.0}
    knobs = Export(runtimes=tuple(args.runtimes), images=1, calibration_images=32, threads=0, **gate)
    samples: Sequence[Packed] = Spread(PackedDataset(args.dataset).split("val"), args.images)
    samples = [resized(sample, args.size) for sample in samples] if args.size else samples
    with tempfile.TemporaryDirectory() as scratch:
        run_export(knobs, args.model, args.dataset, Path(scratch) / "exported")
        runtimes = {name: open_runtime(Path(scratch) / "exported", name) for name in args.runtimes}
        eager = Peer(args.model)
        for runtime in (eager, *runtimes.values()):  # warm
            runtime.predict(samples[0].image[None])
        peer, tallies = measure(eager, runtimes, samples)
    height, width = samples[0].mask.shape
    print(f"{machine()}; {peer.matrix.classes} classes, {len(samples)} images of {height}×{width}, medians")
    print(f"{'eager fp32':<18}{peer.latency_ms:9.1f} ms   mIoU {100 * peer.miou:6.2f}")
    best = 0.0
    for name, of in tallies.items():
        ratio, loss = peer.latency_ms / of.latency_ms, 100 * (of.miou - peer.miou)
        best = max(best, ratio if abs(loss) <= knobs.max_miou_loss else 0.0)
        print(
            f"{name:<18}{of.latency_ms:9.1f} ms {ratio:6.1f} x   mIoU {loss:+6.2f}   agrees {100 * of.agreement:6.2f} %"
        )
    print(f"best within ±{knobs.max_miou_loss} mIoU: {best:.1f} x (goal: {GOAL:.0f} x)")


if __name__ == "__main__":
    main()
