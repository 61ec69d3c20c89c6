"""What one mask is: its kind, the classes it shows, and the codes in it that the taxonomy does not know."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segraft.data import reading
from segraft.data.taxonomy import UNKNOWN, Encoding, Taxonomy
from segraft.data.validation import hints
from segraft.data.validation.files import File, Header
from segraft.data.validation.probes import histogram, ramp_share

Labels = NDArray[np.uint8]
Codes = NDArray[np.unsignedinteger[Any]]
Counts = NDArray[np.int64]
TELLING = 32
"""Fewer transitions than these in a mask say nothing of how it was resized."""
LISTED = 64
"""How many of a mask's codes are recorded; a mask resized or compressed wrongly has thousands."""


@dataclass(frozen=True)
class MaskReader:
    """Reads the masks of one dataset."""

    taxonomy: Taxonomy
    encoding: Encoding

    def read(self, file: File) -> tuple[Labels | None, dict[str, Any]]:
        """H×W uint8 trainIds, ignore_index and UNKNOWN, or None if the pixels are of a wrong kind; and facts.

        Raises:
            Fault: undecodable_file.
        """
        kind, found = self._kind(file.header)
        if kind is not None:
            return None, {"mask_kind": kind, "mask_found": found}
        raw = file.decode(reading.raw_mask, palette="colors" if self.encoding == "colors" else "ids")
        facts: dict[str, Any] = {"mask_size": f"{raw.shape[1]}×{raw.shape[0]}"}
        if raw.ndim == 3 and self.encoding != "colors":
            return None, facts | {"mask_kind": "colors_for_ids", "mask_found": hints.describe_rgb(raw)}
        if raw.ndim == 2 and self.encoding == "colors":
            found = f"one channel ({file.header.image.mode}), values up to {raw.max()}"
            return None, facts | {"mask_kind": "ids_for_colors", "mask_found": found}
        used = histogram(raw) if raw.ndim == 2 else None
        if used is not None and self._binary(used):
            facts |= {"mask_kind": "binary_mask", "mask_found": "only the values 0 and 255"}
            if self._table[255] == UNKNOWN:
                return None, facts
        labels = reading.to_train_ids(raw, self.encoding, self.taxonomy)
        return labels, facts | self._describe(raw, labels, used)

    def _kind(self, header: Header) -> tuple[str | None, str | None]:
        """The rule that this kind of mask breaks, and what was found."""
        mode = header.image.mode
        if header.format in reading.LOSSY:
            return "lossy_mask", f"a {header.format}, whose compression changes codes"
        if mode in ("LA", "PA", "RGBA"):
            return "alpha_mask", f"an alpha channel ({mode})"
        deep = mode == "RGB" and header.bits > 8
        if deep or mode not in ("1", "L", "P", "RGB", "I", "I;16", "I;16B"):
            return "mask_depth", f"{mode} pixels of {header.bits} bits a channel"
        if mode == "L" and header.bits < 8:
            return "mask_depth", f"{header.bits}-bit grey, whose ids readers stretch to 0 … 255"
        return None, None

    def _binary(self, used: Counts) -> bool:
        """0 for background and 255 for foreground, where 255 is ignored or unknown: the foreground would be lost."""
        if np.flatnonzero(used)[-1] != 255 or self._table[255] < UNKNOWN:
            return False
        return bool(used[0] and used[0] + used[255] == used.sum() and used[255] >= 0.01 * used.sum())

    @property
    def _table(self) -> Labels:
        assert self.encoding != "colors"
        return self.taxonomy.lookup(self.encoding)

    def _describe(self, raw: Codes, labels: Labels, used: Counts | None) -> dict[str, Any]:
        classes, void = len(self.taxonomy.classes), self.taxonomy.ignore_index
        counts = np.zeros(256, np.int64)
        if used is None:
            counts += histogram(labels)
        else:
            np.add.at(counts, self._table[: used.size], used)
        share, steps, through = (0.0, 0, 0) if used is None else ramp_share(raw)
        facts: dict[str, Any] = {
            "class_pixels": counts[:classes].tolist(),
            "ignore_pixels": int(counts[void]),
            "void_share": float(counts[void] / labels.size),
            "classes_shown": int(np.count_nonzero(counts[:classes])) or None,
            "labels_sha256": hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest()
            if np.count_nonzero(counts) > 1
            else None,
            "ramp_share": share if steps >= TELLING and through > 1 else None,
            "thin_share": share if steps >= TELLING and through == 1 else None,
            "codes": [] if used is None else np.flatnonzero(used)[:LISTED].tolist(),
            "unknown": [],
        }
        return facts | (self._unknown(raw, labels, facts) if counts[UNKNOWN] else {})

    def _unknown(self, raw: Codes, labels: Labels, facts: dict[str, Any]) -> dict[str, Any]:
        codes = raw[labels == UNKNOWN].astype(np.int64)
        codes = codes if codes.ndim == 1 else codes @ (1 << 16, 1 << 8, 1)  # 0xRRGGBB
        values, times = np.unique(codes, return_counts=True)
        order = np.argsort(-times, kind="stable")
        values, shares = values[order], times[order] / labels.size
        found, remedy = hints.explain(self.taxonomy, self.encoding, values, shares, facts)
        return {"unknown": values[:LISTED].tolist(), "unknown_found": found, "unknown_remedy": remedy}
