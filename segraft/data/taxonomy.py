"""Taxonomies: the only place that knows classes, their colours, their codes in mask files, and how label sets map.

A taxonomy is a YAML file in data/taxonomies, named after its label set::

    name: camvid
    ignore_index: 255                  # what void becomes in a target mask
    void: {ids: [11], colors: [[0, 0, 0]]}
    classes:                           # the order is the trainId: 0, 1, 2 …
      - {name: sky, color: [128, 128, 128], ids: [0]}
    maps:                              # another taxonomy's class → ours; null: ignored; "*": every class not named
      cityscapes: {sky: sky, train: null}

A map merges classes or ignores them (n → 1); no map can split one. Where several datasets are trained on together, a
class that merges several of ours is kept as what it says: one of these (`Taxonomy.joint_from`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from segraft.errors import UserError
from segraft.params import Color, Section, build, read_yaml

Encoding = Literal["ids", "trainIds", "colors"]
"""What a mask file holds: the dataset's own ids, indices into the taxonomy, or colours."""
Id = Annotated[int, Field(ge=0, le=65535)]

UNKNOWN = 254
"""In a decoded mask: a value that the taxonomy does not know. Never in a packed dataset."""

REST = "*"
"""In a map: every class of the other taxonomy that the map does not name."""


class Class(Section):
    """One class; its trainId is its place in the list."""

    name: str = Field(pattern=r"^\S(.*\S)?$")
    color: Color = Field(description="for pictures, and for colour masks unless `colors` says otherwise")
    ids: tuple[Id, ...] = ()
    colors: tuple[Color, ...] = Field((), description="colours in mask files; empty: `color`")


class Void(Section):
    """What is neither right nor wrong: ignored in training and in scores."""

    ids: tuple[Id, ...] = ()
    colors: tuple[Color, ...] = ()


class Taxonomy(Section):
    """A label set; see the module's docstring for the file."""

    name: str
    description: str = ""
    ignore_index: Literal[255] = 255
    void: Void = Void()
    classes: tuple[Class, ...] = Field(min_length=2, max_length=250)
    maps: dict[str, dict[str, str | None]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_two_claims(self) -> Taxonomy:
        ids = chain(self.void.ids, *self.class_ids)
        colors = chain(self.void.colors, *self.class_colors)
        for what, claims in (("class name", self.names), ("id", ids), ("color", colors)):
            twice = [str(claim) for claim, times in Counter[object](claims).items() if times > 1]
            if twice:
                raise ValueError(f"{what} given twice: {', '.join(sorted(twice))}")
        for other, pairs in self.maps.items():
            unknown = sorted({str(ours) for ours in pairs.values() if ours is not None and ours not in self.names})
            if unknown:
                raise ValueError(f"maps.{other} leads to {', '.join(unknown)}, which is no class of {self.name}")
        return self

    @property
    def names(self) -> list[str]:
        """Class names by trainId."""
        return [c.name for c in self.classes]

    @property
    def class_ids(self) -> list[tuple[int, ...]]:
        """Mask-file ids by trainId."""
        return [c.ids for c in self.classes]

    @property
    def class_colors(self) -> list[tuple[Color, ...]]:
        """Mask-file colours by trainId."""
        return [c.colors or (c.color,) for c in self.classes]

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """(256, 3) uint8 RGB: a display colour for each trainId; black for ignore_index."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.classes)] = [c.color for c in self.classes]
        return palette

    def lookup(self, encoding: Literal["ids", "trainIds"]) -> NDArray[np.uint8]:
        """(65536,) uint8, read-only: mask-file value → trainId, ignore_index, or UNKNOWN."""
        return self._from_ids if encoding == "ids" else self._from_train_ids

    @cached_property
    def _from_ids(self) -> NDArray[np.uint8]:
        return _table(1 << 16, dict(_pairs(self.void.ids, self.class_ids, self.ignore_index)))

    @cached_property
    def _from_train_ids(self) -> NDArray[np.uint8]:
        return _table(1 << 16, {index: index for index in (*range(len(self.classes)), self.ignore_index)})

    def color_lookup(self) -> dict[int, int]:
        """Colour as 0xRRGGBB → trainId or ignore_index."""
        pairs = _pairs(self.void.colors, self.class_colors, self.ignore_index)
        return {(r << 16) | (g << 8) | b: index for (r, g, b), index in pairs}

    @cached_property
    def color_table(self) -> NDArray[np.uint8]:
        """(2^24,) uint8, read-only: colour as 0xRRGGBB → trainId, ignore_index, or UNKNOWN; 16 MiB, made when asked."""
        return _table(1 << 24, self.color_lookup())

    def map_from(self, other: Taxonomy) -> NDArray[np.uint8]:
        """(256,) uint8: trainId of `other` → our trainId, or ignore_index.

        Raises:
            UserError: this taxonomy declares no map from `other`, or the map leaves out a class of it.
        """
        table = np.full(256, self.ignore_index, np.uint8)
        if other.name == self.name:
            table[: len(self.classes)] = np.arange(len(self.classes))
            return table
        pairs = self._complete_map(other)
        for index, name in enumerate(other.names):
            ours = pairs[name]
            if ours is not None:
                table[index] = self.names.index(ours)
        return table

    def joint_from(self, other: Taxonomy) -> tuple[NDArray[np.uint8], dict[int, tuple[int, ...]]]:
        """How labels of `other` are read where several datasets are trained on together.

        Our map of `other` is followed; a class that it ignores, or all of them if there is none, is read by the map
        of `other` from us, backwards: what merges several of ours is one of these.

        Returns:
            (256,) uint8, trainId of `other` → our trainId, or ignore_index; and trainId of `other` → our trainIds, of
            which a pixel of it is one.

        Raises:
            UserError: neither taxonomy declares a map from the other, or a map leaves out a class.
        """
        ours = other.name == self.name or other.name in self.maps
        if not ours and self.name not in other.maps:
            raise UserError(
                f"data/taxonomies/{self.name}.yaml: maps.{other.name}: missing; say which class of {self.name} each "
                f"class of {other.name} is (or null), or, in {other.name}.yaml, the other way round (maps.{self.name})"
            )
        table = self.map_from(other) if ours else np.full(256, self.ignore_index, np.uint8)
        several = dict[int, tuple[int, ...]]()
        if other.name != self.name and self.name in other.maps:
            merged = other.map_from(self)[: len(self.classes)]
            for index in np.flatnonzero(table[: len(other.classes)] == self.ignore_index).tolist():
                members = tuple(np.flatnonzero(merged == index).tolist())
                if len(members) > 1:
                    several[index] = members
                elif members and not ours:
                    table[index] = members[0]
        return table, several

    def _complete_map(self, other: Taxonomy) -> dict[str, str | None]:
        where = f"data/taxonomies/{self.name}.yaml: maps.{other.name}"
        if other.name not in self.maps:
            raise UserError(f"{where}: missing; say which class of {self.name} each class of {other.name} is (or null)")
        pairs = dict(self.maps[other.name])
        if REST in pairs:
            rest = pairs.pop(REST)
            pairs = {name: rest for name in other.names} | pairs
        missing, extra = set(other.names) - set(pairs), set(pairs) - set(other.names)
        if missing or extra:
            raise UserError(f"{where}: classes left out: {sorted(missing)}; not in {other.name}: {sorted(extra)}")
        return pairs


def kin(folder: Path, taxonomy: Taxonomy) -> dict[str, tuple[tuple[str, str], ...]]:
    """Every other taxonomy that a map links with this one → pairs of its class and ours, by the map of either.

    Ours merges classes of theirs where several of theirs go with one of ours; theirs merged ours where it is the
    other way round.
    """
    found = {}
    for name in _names(folder):
        other = load_taxonomy(folder, name)
        pairs = set(_linked(taxonomy.maps.get(other.name, {}), other.names))
        pairs |= {(theirs, ours) for ours, theirs in _linked(other.maps.get(taxonomy.name, {}), taxonomy.names)}
        if pairs and other.name != taxonomy.name:
            found[other.name] = tuple(sorted(pairs))
    return found


def _linked(pairs: Mapping[str, str | None], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        to = pairs.get(name, pairs.get(REST))
        if to is not None:
            yield name, to


Code = TypeVar("Code")


def _pairs(void: Iterable[Code], classes: Iterable[Iterable[Code]], ignore_index: int) -> Iterator[tuple[Code, int]]:
    yield from ((code, ignore_index) for code in void)
    yield from ((code, index) for index, codes in enumerate(classes) for code in codes)


def _table(size: int, known: dict[int, int]) -> NDArray[np.uint8]:
    table = np.full(size, UNKNOWN, np.uint8)
    table[list(known)] = list(known.values())
    table.flags.writeable = False
    return table


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("[!.]*.yaml"))


def load_taxonomy(folder: Path, name: str) -> Taxonomy:
    """The taxonomy `name` from a folder of taxonomies.

    Raises:
        UserError: there is no such file (the message lists the choices), or it is not a taxonomy.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"{path}: no such taxonomy; there are {', '.join(_names(folder))}")
    taxonomy: Taxonomy = build(Taxonomy, read_yaml(path), str(path))
    if taxonomy.name != name:
        raise UserError(f"{path}: name: {taxonomy.name!r} must be the file's own name, {name!r}")
    return taxonomy
