"""Taxonomies: the only place that knows classes, their colours, their codes in mask files, and how label sets map.

A taxonomy is a YAML file in data/taxonomies, named after its label set::

    name: camvid
    ignore_index: 255                  # what void becomes in a target mask
    void: {ids: [11], colors: [[0, 0, 0]]}
    classes:                           # the order is the trainId: 0, 1, 2 …
      - {name: sky, color: [128, 128, 128], ids: [0]}
    maps:                              # another taxonomy's class → ours; null: ignored
      cityscapes: {sky: sky, train: null}
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from segraft.errors import UserError
from segraft.params import Section, build, read_yaml

Encoding = Literal["ids", "trainIds", "colors"]
"""What a mask file holds: the dataset's own ids, indices into the taxonomy, or colours."""
Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]
Id = Annotated[int, Field(ge=0, le=65535)]

UNKNOWN = 254
"""In a decoded mask: a value that the taxonomy does not know. Never in a packed dataset."""


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
    maps: dict[str, dict[str, str | None]] = {}

    @model_validator(mode="after")
    def _no_two_claims(self) -> Taxonomy:
        for what, claims in (("class name", self.names), ("id", self._claims("ids")), ("color", self._claims("colors"))):
            twice = sorted({str(claim) for claim in claims if claims.count(claim) > 1})
            if twice:
                raise ValueError(f"{what} given twice: {', '.join(twice)}")
        for other, pairs in self.maps.items():
            unknown = sorted({str(ours) for ours in pairs.values() if ours is not None and ours not in self.names})
            if unknown:
                raise ValueError(f"maps.{other} leads to {', '.join(unknown)}, which is no class of {self.name}")
        return self

    def _claims(self, what: Literal["ids", "colors"]) -> list[object]:
        own = self.class_ids if what == "ids" else self.class_colors
        return [code for codes in own for code in codes] + list(getattr(self.void, what))

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
        """(65536,) uint8: mask-file value → trainId, ignore_index, or UNKNOWN."""
        table = np.full(65536, UNKNOWN, np.uint8)
        if encoding == "trainIds":
            table[: len(self.classes)] = np.arange(len(self.classes))
            table[self.ignore_index] = self.ignore_index
            return table
        table[list(self.void.ids)] = self.ignore_index
        for index, ids in enumerate(self.class_ids):
            table[list(ids)] = index
        return table

    def color_lookup(self) -> dict[int, int]:
        """Colour as 0xRRGGBB → trainId or ignore_index."""
        pairs = [(color, self.ignore_index) for color in self.void.colors]
        pairs += [(color, index) for index, colors in enumerate(self.class_colors) for color in colors]
        return {(r << 16) | (g << 8) | b: index for (r, g, b), index in pairs}

    def map_from(self, other: Taxonomy) -> NDArray[np.uint8]:
        """(256,) uint8: trainId of `other` → our trainId, or ignore_index.

        Raises:
            UserError: this taxonomy declares no map from `other`, or the map leaves out a class of it.
        """
        table = np.full(256, self.ignore_index, np.uint8)
        if other.name == self.name:
            table[: len(self.classes)] = np.arange(len(self.classes))
            return table
        where = f"data/taxonomies/{self.name}.yaml: maps.{other.name}"
        if other.name not in self.maps:
            raise UserError(f"{where}: missing; say which class of {self.name} each class of {other.name} is (or null)")
        pairs = self.maps[other.name]
        missing, extra = set(other.names) - set(pairs), set(pairs) - set(other.names)
        if missing or extra:
            raise UserError(f"{where}: classes left out: {sorted(missing)}; not in {other.name}: {sorted(extra)}")
        for index, name in enumerate(other.names):
            ours = pairs[name]
            if ours is not None:
                table[index] = self.names.index(ours)
        return table


def load_taxonomy(folder: Path, name: str) -> Taxonomy:
    """The taxonomy `name` from a folder of taxonomies.

    Raises:
        UserError: there is no such file (the message lists the choices), or it is not a taxonomy.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        choices = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"{path}: no such taxonomy; there are {choices}")
    taxonomy: Taxonomy = build(Taxonomy, read_yaml(path), str(path))
    if taxonomy.name != name:
        raise UserError(f"{path}: name: {taxonomy.name!r} must be the file's own name, {name!r}")
    return taxonomy
