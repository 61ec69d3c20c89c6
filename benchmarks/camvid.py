"""CamVid's official split, 11 classes, void ignored: test mIoU after a budget of training.

    python -m benchmarks.camvid FOLDER [--weights imagenet|random] [--steps 440] [-S pretrain.lr=0.002]

FOLDER holds train, trainannot, … as SegNet's authors laid them out. The figures are those of the pipeline's own steps:
the packer, step pretrain, and the score of step evaluate; the time is the whole of step pretrain's, validation too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import machine
from segraft.data.formats import list_samples
from segraft.data.packing import Files, pack
from segraft.data.taxonomy import load_taxonomy
from segraft.evaluation.run import score
from segraft.params import load_params
from segraft.steps import run

RECIPE: dict[str, dict[str, Any]] = {
    "data.target": {"format": "camvid", "taxonomy": "camvid"},
    "augment": {"crop": "[256,352]", "online.scale": "[0.75,1.5]"},
    "pretrain": {"epochs": 4, "batch_size": 8, "lr": 0.0015, "ema": 0.99, "warmup_steps": 20},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", choices=["imagenet", "random"], default="imagenet")
    parser.add_argument("--steps", type=int, default=440)
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    recipe = [f"{section}.{key}={value}" for section, keys in RECIPE.items() for key, value in keys.items()]
    steps = [f"pretrain.steps_per_epoch={args.steps // RECIPE['pretrain']['epochs']}", f"model.weights={args.weights}"]
    params = load_params(Path("params.yaml"), [*recipe, *steps, *args.set])
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        listing = list_samples(args.folder, params.data.target)
        taxonomy = load_taxonomy(Path("data/taxonomies"), "camvid")
        rows = [
            {"id": s.id, "split": s.split, "group": s.group, "tags": list(s.tags), "image": s.image, "mask": s.mask}
            for s in listing.samples
        ]
        files = Files(args.folder, rows, listing.encoding, taxonomy, taxonomy, None)
        pack(files, work / "packed", params.augment, [], {})
        started = time.perf_counter()
        run(
            "pretrain",
            {"model": params.model, "pretrain": params.pretrain},
            {"dataset": work / "packed", "work": work / "work", "weights": work / "weights", "log": work / "log"},
        )
        seconds = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_SELF)
        result = score(work / "weights", work / "packed", "test", params.evaluate.batch_size).as_json()
    print(machine())
    print(f"{args.weights}, {args.steps} steps: {seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} CPU-s")
    low, high = result["miou_interval"]
    print(f"test mIoU {result['miou']:.1%} ({low:.1%} to {high:.1%}), pixel accuracy {result['pixel_accuracy']:.1%}")
    print("  ".join(f"{name} {iou:.1%}" for name, iou in result["iou"].items()))


if __name__ == "__main__":
    main()
