"""From day to dusk on CamVid: what the source is worth with few labelled images, as docs/results-dusk.md reports it.

    python -m benchmarks.dusk FOLDER WORK [-S ladder.seeds=[1]] [-S finetune.steps_per_epoch=100]

FOLDER holds train, trainannot, … as SegNet's authors laid them out. The source are the day sequences of train (0006R0
and 0016E5), the target is 0001TP, filmed at dusk: the last eight of its train frames are val, its test frames are test.
Everything is kept in WORK, so that a call that was cut goes on. The rung finetune is what the planner chooses for each
label budget; all other rungs use the settings below on top of params.yaml.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.common import machine
from segraft.checkpoint import WEIGHTS, sha256
from segraft.data.manifest import read_manifest
from segraft.data.packed import PackedDataset
from segraft.ladder.cells import Data, Result, climb, source_pixels
from segraft.ladder.report import told, write
from segraft.ladder.subsets import pack_subset
from segraft.ladder.table import outcome
from segraft.params import Params, load_params
from segraft.planning.plan import Inputs, plan
from segraft.planning.write import commented, write_text
from segraft.steps import beside, run

PARAMS = Path("params.yaml")
SOURCE_CROP = "augment.crop=[192, 256]"
RECIPE = """
data.source.format=camvid data.source.taxonomy=camvid data.source.include=["*0006R0*","*0016E5*"]
data.target.format=camvid data.target.taxonomy=camvid data.target.include=["*0001TP*"] data.target.holdout=0.13
augment.crop=[224,288] augment.online.scale=[0.75,1.5] augment.simulate.night=0.25 augment.simulate.rain=0
augment.source_samples=305
pretrain.epochs=4 pretrain.steps_per_epoch=110 pretrain.batch_size=8 pretrain.ema=0.99 pretrain.threads=1
finetune.epochs=4 finetune.steps_per_epoch=25 finetune.batch_size=4 finetune.checkpoint_every=0 finetune.threads=1
evaluate.threads=1 ladder.labels=[0.148,0.296,1.0] ladder.rungs=[encoder,source,full,finetune]
""".split()


def prepare(params: Params, folder: Path, work: Path) -> None:
    """Pack the data and learn the source, as far as that is not done."""
    camvid = {"source": folder, "target": folder, "taxonomies": Path("data/taxonomies"), "manifest": work / "manifest"}
    if not (work / "manifest").exists():
        run("validate", {"data": params.data, "validate": params.validate_}, camvid | {"report": work / "validate"})
    crops = {"day": load_params(PARAMS, [*RECIPE, SOURCE_CROP]).augment, "dusk": params.augment}
    for name, augment in crops.items():
        if not (work / name / "target").exists():
            packed = {f"packed_{side}": work / name / side for side in ("source", "target")}
            paths = camvid | packed | {"sheet": work / name / "augment.png"}
            run("augment", {"data": params.data, "augment": augment}, paths)
    if not (work / "pretrained").exists():
        paths = {"dataset": work / "day/source", "work": work / "work", "weights": work / "pretrained"}
        run("pretrain", {"model": params.model, "pretrain": params.pretrain}, paths | {"log": work / "log"})


def planned(params: Params, share: float, work: Path, source: Path, model: Path) -> Params:
    """The params with the planner's section finetune for a label budget: that of the first seed's images."""
    name = f"{share:g}-{params.finetune.epochs * params.finetune.steps_per_epoch}-{sha256(model / WEIGHTS)[:8]}"
    path = work / "plans" / f"{name}.yaml"
    if not path.exists():
        target = PackedDataset(pack_subset(work / "dusk/target", share, params.ladder.seeds[0], work / "plans" / name))
        manifest = read_manifest(work / "manifest", "target")
        made = plan(Inputs(params, PackedDataset(source), target, manifest, model), None)
        write_text(path, commented(PARAMS.read_text(encoding="utf-8"), made.choices))
    chosen = load_params(path).finetune.model_copy(update={"threads": params.finetune.threads})
    return params.model_copy(update={"finetune": chosen})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pretrained", type=Path, help="another source model (of the day sequences)")
    parser.add_argument("--source", type=Path, help="the packed dataset that it learned from")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    params = load_params(PARAMS, [*RECIPE, *args.set])
    if bool(args.pretrained) != bool(args.source):
        parser.error("--pretrained and --source go together")
    prepare(params, args.folder, args.work)
    model, source = args.pretrained or args.work / "pretrained", args.source or args.work / "day/source"
    data = Data(params, args.work / "dusk/target", model, source_pixels(model, source), args.work / "ladder")
    found: dict[tuple[str, float, int], Result] = {}
    for share in params.ladder.labels:
        for rung in params.ladder.rungs:
            used = planned(params, share, args.work, source, model) if rung == "finetune" else params
            ladder = params.ladder.model_copy(update={"labels": (share,), "rungs": (rung,)})
            results = climb(replace(data, params=used.model_copy(update={"ladder": ladder})))
            found |= {(result.rung, result.share, result.seed): result for result in results}
    told_all = outcome(list(found.values()))
    with beside(args.work / "report") as made:
        write(told_all, made)
    print("\n".join([machine(), *told(told_all), str(args.work / "report/ladder.html")]))


if __name__ == "__main__":
    main()
