"""The augment step in pieces, for a source so large that one task would pack it for hours.

Its parts are packed side by side and joined by links before the rest of the step runs. The pieces are the ones that the
step itself is made of (`segraft.data.sides`).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft import steps
from segraft.orchestration.component import MADE_OF, STORE, Artifact, files, locate, made_of, reported, settle
from segraft.orchestration.rendering import render
from segraft.params import Augment, Data, as_section

if TYPE_CHECKING:
    from segraft.data.sides import Given


def pack(arguments: Mapping[str, Any]) -> None:
    """Pack part k of n of the source; `arguments` are those of components/pack.py, `part` is "k/n"."""
    from segraft.data.sides import pack_source

    number, parts = map(int, arguments["part"].split("/"))
    with reported("pack", arguments), _given(arguments) as given:
        with steps.beside(Path(arguments["packed"].path)) as packed:
            pack_source(given, Path(locate(arguments["source"])), packed, (number, parts))
        settle(arguments["packed"], made_of(arguments))


def join(parts: Sequence[Artifact], packed_source: Artifact) -> None:
    """Make one packed source of its parts; where there is a store, the shards stay in it, and none is copied."""
    from segraft.data.sides import join

    with reported("join", {}):
        store, path = os.environ.get(STORE), Path(packed_source.path)
        origins = {name: md5 for part in parts for name, md5 in part.metadata.get(MADE_OF, {}).items()}
        with steps.temporary(Path(store or path.parent) / path.name) as made:
            join([Path(locate(part)) for part in parts], made)
            settle(packed_source, origins, made)
            if not store:
                steps.publish(made, path)


def augment_target(arguments: Mapping[str, Any]) -> None:
    """Pack the target and show both; `arguments` are those of components/augment_target.py."""
    from segraft.data.packed import PackedDataset
    from segraft.data.sheet import contact_sheet
    from segraft.data.sides import pack_target

    source, target = (Path(locate(arguments[name])) for name in ("source", "target"))
    paths = {name: Path(arguments[name].path) for name in ("packed_target", "sheet")}
    with reported("augment_target", arguments), _given(arguments) as given:
        with steps.beside(paths["packed_target"]) as made, steps.beside(paths["sheet"]) as sheet:
            pack_target(given, source, target, made)
            packed = {"source": PackedDataset(locate(arguments["packed_source"])), "target": PackedDataset(made)}
            contact_sheet(packed, given.augment.seed, sheet)
        cards = {name: dataset.card.splits for name, dataset in packed.items()}
        metrics = {f"{name}_{split}": float(s.samples) for name, card in cards.items() for split, s in card.items()}
        render("augment", arguments, paths, metrics)
        origins = made_of(arguments)  # before an output is settled, for then it would count as one
        for name in paths:
            settle(arguments[name], origins)


@contextmanager
def _given(arguments: Mapping[str, Any]) -> Iterator[Given]:
    from segraft.data.sides import Given

    data, augment = (as_section(name, arguments[name]) for name in ("data", "augment"))
    assert isinstance(data, Data) and isinstance(augment, Augment)
    with tempfile.TemporaryDirectory() as scratch:
        taxonomies = files(json.loads(arguments["taxonomies"]), Path(scratch) / "taxonomies")
        yield Given(data, augment, taxonomies, Path(locate(arguments["manifest"])))
