"""A small transfer, as the pipeline leaves it before evaluate, and what evaluate makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLASSES = {"road": (128, 64, 128), "sky <b>&": (70, 130, 180), "car": (0, 0, 142)}
RUNS = {"pretrain": "pretrained", "finetune": "finetuned", "scratch": "scratch"}
DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text())["evaluate"]
KNOBS = {"evaluate": DEFAULTS | {"batch_size": 3, "examples": 2, "threads": 1}}


@pytest.fixture(scope="session")
def transfer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What evaluate reads: packed/, models/{pretrained,finetuned,scratch}/, manifest/, validation/ and logs/.

    The models are real networks with random weights; names, tags and findings hold what HTML must escape.
    """
    folder = tmp_path_factory.mktemp("transfer")
    _pack(folder / "packed")
    for seed, (run, model) in enumerate(RUNS.items()):
        _model(folder / "models" / model, seed)
        _log(folder / "logs" / run)
    _manifest(folder / "manifest")
    (folder / "validation").mkdir()
    (folder / "validation" / "validate.json").write_text(json.dumps(_checks()))
    return folder


@pytest.fixture(scope="session")
def evaluated(transfer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What evaluate made of `transfer`: scores.json, report.html, plots/, and metrics.json."""
    from segraft.steps import run

    folder = tmp_path_factory.mktemp("evaluated")
    metrics = run("evaluate", KNOBS, step_paths(transfer, folder))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@pytest.fixture(scope="session")
def report(evaluated: Path) -> str:
    """The HTML report of `evaluated`."""
    return (evaluated / "report.html").read_text(encoding="utf-8")


def step_paths(transfer: Path, into: Path) -> dict[str, Path]:
    """The path parameters of the step evaluate."""
    models = {"pretrained": "pretrained", "baseline": "scratch", "finetuned": "finetuned"}
    outputs = {"scores": "scores.json", "report": "report.html", "plots": "plots"}
    return {
        "dataset": transfer / "packed",
        **{name: transfer / "models" / model for name, model in models.items()},
        **{name: transfer / name for name in ("manifest", "validation", "logs")},
        **{name: into / file for name, file in outputs.items()},
    }


def _pack(folder: Path) -> None:
    from segraft.checkpoint import ClassCard
    from segraft.data.packed import DatasetCard, Packed, ShardWriter
    from segraft.params import load_params

    rng = np.random.default_rng(0)
    cards = {}
    for split, count in {"train": 2, "val": 2, "test": 7}.items():
        writer = ShardWriter(folder, split, len(CLASSES), "raw", 1)
        for i in range(count):
            height, width = (48, 64) if i % 3 else (40, 72)
            mask = np.kron(rng.integers(0, 3, (height // 8, width // 8)), np.ones((8, 8))).astype(np.uint8)
            image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8) + 60 * mask[..., None]
            mask[:3] = 255
            tags = ("night",) if i % 2 else ("night", "rain <i>")
            writer.add(Packed(f"{split}_{i}<img>", f"drive{i // 4}", tags, image, mask))
        cards[split] = writer.close()
    online = load_params(ROOT / "params.yaml").augment.online
    classes = tuple(ClassCard(name=name, color=color) for name, color in CLASSES.items())
    card = DatasetCard(taxonomy="toy", classes=classes, codec="raw", crop=(32, 32), online=online, splits=cards)
    (folder / "dataset.json").write_text(json.dumps(card.model_dump()))


def _model(folder: Path, seed: int) -> None:
    import torch

    from segraft.checkpoint import ClassCard, ModelCard, Preprocessing, save_model
    from segraft.models import create_model

    torch.manual_seed(seed)
    card = ModelCard(
        arch="unet",
        encoder="efficientnet_lite0",
        taxonomy="toy",
        classes=tuple(ClassCard(name=name, color=color) for name, color in CLASSES.items()),
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        provenance={"steps": 20},
    )
    save_model(folder, create_model(card.arch, card.encoder, len(CLASSES)), card)


def _log(folder: Path) -> None:
    folder.mkdir(parents=True)
    training = {
        "params": {"training": {"seed": 7, "optimizer": "adamw", "lr": 0.001}},
        "dataset": "0" * 64,
        "steps": 20,
        "seconds": 3.2,
        "best_epoch": 2,
        "best_miou": 0.4,
        "images_per_second": 12.5,
        "peak_memory_mb": 900.0,
        "started": 1.75e9,
        "environment": {"torch": "2", "python": "3.11"},
        "graft": [{"tensor": "a", "outcome": "kept", "why": ""}, {"tensor": "b", "outcome": "skipped", "why": "new"}],
    }
    (folder / "training.json").write_text(json.dumps(training))
    rows = [{"step": step, "epoch": step / 10, "time": 0.0, "loss": 2 / step} for step in range(1, 21)]
    rows[9]["val_miou"], rows[19]["val_miou"] = 0.3, 0.4
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _checks() -> dict[str, object]:
    rare = {"rule": "rare_class", "severity": "warning", "message": "car: shown by 2 images <script>alert(1)</script>"}
    split = {"images": 2, "pixels": 18}
    classes = [{"class": name, "color": color, "train": split} for name, color in CLASSES.items()]
    return {
        "findings": [rare, rare | {"message": "sky: shown by 1 image"}],
        "datasets": {name: {"taxonomy": "toy"} for name in ("source", "target")},
        "classes": {"source": classes, "target": classes},
    }


def _manifest(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    from segraft.data.manifest import FILES, schema

    folder.mkdir()
    for file in FILES.values():
        rows = [
            {"id": str(i), "split": split, "height": 48, "width": 64, "class_pixels": [9, 9, 9], "ignore_pixels": 192}
            for i, split in enumerate(("train", "train", "val", "test"))
        ]
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema()), folder / file)
