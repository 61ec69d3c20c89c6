"""What unknown codes in a mask most likely mean, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segraft.data.taxonomy import Encoding, Taxonomy
from segraft.data.validation.probes import RAMPS

SHOWN = 8
NEAREST = "resize masks with nearest neighbour only, and keep them as PNG"


def describe_rgb(rgb: NDArray[np.uint8]) -> str:
    """What three channels hold that should be one."""
    same = bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all())
    return "three equal channels (ids saved as RGB)" if same else "colours (RGB)"


def explain(
    taxonomy: Taxonomy,
    encoding: Encoding,
    values: NDArray[np.unsignedinteger[Any]],
    shares: NDArray[np.float64],
    facts: dict[str, Any],
) -> tuple[str, str]:
    """(found, remedy) for the unknown codes of one mask, most frequent first; `shares` are of all pixels."""
    color = encoding == "colors"
    shown = [f"{f'#{v:06x}' if color else v} ({100 * s:.2g} %)" for v, s in zip(values[:SHOWN], shares, strict=False)]
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    found = f"{'colours' if color else 'ids'} that taxonomy {taxonomy.name} does not know: {', '.join(shown)}{more}"
    unknown = {int(value) for value in values}
    if color:
        return found, _colors(taxonomy, unknown, float(shares[0]))
    ramps = facts["ramp_share"] or facts["thin_share"] or 0.0
    return found, _ids(taxonomy, encoding, unknown, set(facts["codes"]), ramps)


def _colors(taxonomy: Taxonomy, unknown: set[int], largest: float) -> str:
    if len(unknown) >= SHOWN and largest < 0.05:
        return f"so many rare colours come of smoothing or of JPEG: {NEAREST}"
    return f"declare them in {_file(taxonomy)}, as a class's colors or as void.colors, or fix the mask"


def _ids(taxonomy: Taxonomy, encoding: Encoding, unknown: set[int], seen: set[int], ramps: float) -> str:
    if ramps > RAMPS:
        return f"the ids step from class to class, as a bilinear resize or JPEG leaves them: {NEAREST}"
    if encoding == "trainIds":
        return "the mask does not hold trainIds; if it holds the dataset's own ids, set folder.encoding: ids"
    if _grey_palette(taxonomy, unknown | seen):
        return "these are the grey levels of the taxonomy's colours: keep the colour mask, and set encoding: colors"
    trainids = seen <= set(range(len(taxonomy.classes))) | {taxonomy.ignore_index}
    also = "; if the masks hold trainIds, set folder.encoding: trainIds" if trainids else ""
    if len(unknown) > 1:
        return f"declare them in {_file(taxonomy)}, as a class's ids or in void.ids, or fix the mask{also}"
    (value,) = unknown
    void = f"if {value} marks ignored pixels, declare it: void: {{ids: [{value}]}} in {_file(taxonomy)}"
    if value == one_past(taxonomy):
        also = f"; if the masks count classes from 1, give the classes the ids 1 … {value} there{also}"
    return void + also


def one_past(taxonomy: Taxonomy) -> int | None:
    """The number of classes n if they have the ids 0 … n-1: the last class's id in a mask that counts from 1."""
    ids = sorted(code for codes in taxonomy.class_ids for code in codes)
    return len(ids) if ids and ids == list(range(len(ids))) else None


def _file(taxonomy: Taxonomy) -> str:
    return f"data/taxonomies/{taxonomy.name}.yaml"


def _grey_palette(taxonomy: Taxonomy, values: set[int]) -> bool:
    """Whether a colour mask went through a conversion to grey (ITU-R 601)."""
    colors = [color for own in taxonomy.class_colors for color in own] + list(taxonomy.void.colors)
    grey = {int(g) + d for g in np.round(np.array(colors) @ [0.299, 0.587, 0.114]) for d in (-1, 0, 1)}
    return len(values) >= 3 and values <= grey
