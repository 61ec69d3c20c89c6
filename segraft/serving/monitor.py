"""What the server remembers: the latest images' statistics, metrics of its answers, and the hardest images."""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import os
import threading
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import cv2

from segraft.checkpoint import ModelCard
from segraft.params import ServeMonitor
from segraft.serving import metrics
from segraft.serving.answers import Segmented, count_pixels
from segraft.serving.drift import Reference, compare, statistics

SUFFIX = {b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp"}
logger = logging.getLogger("segraft.serving")
REFRESH = 64
"""Images after which the drift metrics are measured again."""


class Monitor:
    """Watches the answers of one model; several threads may call it.

    Args:
        card: of the model.
        reference: statistics of its training images, if it came with any.
        settings: how much to remember.
    """

    def __init__(self, card: ModelCard, reference: Reference | None, settings: ServeMonitor) -> None:
        self._names = [c.name for c in card.classes]
        self._pixels = [metrics.PIXELS.labels(name) for name in self._names]
        self._reference, self._settings = reference, settings
        self._rows: deque[dict[str, float]] = deque(maxlen=settings.window)
        self._turn, self._seen, self._lock = itertools.count(1), 0, threading.Lock()
        self._hardest = Hardest(Path(settings.keep_folder), settings.keep) if settings.keep else None

    def samples_next(self) -> bool:
        """Whether the next image's confidence is to be measured."""
        every = self._settings.confidence_every
        return bool(every) and next(self._turn) % every == 0

    def observe(self, of: Segmented, confidence: float | None, data: bytes | None) -> None:
        """Take note of an answer.

        Args:
            of: the image and its ids.
            confidence: its mean confidence, if it was measured.
            data: the image's file, if it came as one.
        """
        pixels = count_pixels(of.ids, len(self._names))
        row = statistics(of.image, pixels, self._names)
        for counter, count in zip(self._pixels, pixels.tolist(), strict=True):
            if count:
                counter.inc(count)
        if confidence is not None:
            row["confidence"] = confidence
            metrics.CONFIDENCE.observe(confidence)
            if self._hardest is not None:
                self._set_aside(self._hardest, confidence, of, data)
        with self._lock:
            self._rows.append(row)
            self._seen += 1
            refresh = self._seen % REFRESH == 0
        if refresh:
            self.drift()

    def _set_aside(self, hardest: Hardest, confidence: float, of: Segmented, data: bytes | None) -> None:
        try:
            hardest.offer(confidence, of, data)
        except OSError as error:  # a full disk is no reason not to answer
            logger.warning("an image could not be set aside: %s", error.strerror)

    def drift(self) -> dict[str, Any]:
        """The /drift summary; refreshes the metrics of drift."""
        with self._lock:
            rows = list(self._rows)
        if self._reference is None:
            why = "the model folder has no training reference (serving.json); `segraft export` writes one"
            return {"reference": None, "images": len(rows), "why": why, "statistics": {}}
        found = compare(self._reference, rows)
        for name, of in found.items():
            metrics.DRIFT.labels(name).set(of["psi"])
        levels = [of["level"] for of in found.values()]
        level = next((level for level in ("major", "moderate") if level in levels), "stable" if rows else "unknown")
        return {
            "reference": {"images": self._reference.images},
            "images": len(rows),
            "level": level,
            "statistics": found,
        }


class Hardest:
    """A folder with the images on which the model was least sure, no more than `most` of them, also after a restart."""

    def __init__(self, folder: Path, most: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._most, self._lock = folder, most, threading.Lock()
        self._heap: list[tuple[float, str]] = []
        for path in folder.glob("[!.]*.json"):
            try:
                note = json.loads(path.read_text(encoding="utf-8"))
                heapq.heappush(self._heap, (-float(note["confidence"]), str(note["file"])))
            except (ValueError, LookupError, TypeError):  # a labelling tool's, say
                logger.warning("%s: not a note of this server; left alone", path)
        self._shrink()

    def offer(self, confidence: float, of: Segmented, data: bytes | None) -> None:
        """Keep an image if it is among the hardest; the easiest one makes room."""
        with self._lock:
            if len(self._heap) >= self._most and -confidence <= self._heap[0][0]:
                return
            name = self._write(confidence, of, data)
            heapq.heappush(self._heap, (-confidence, name))
            self._shrink()

    def _write(self, confidence: float, of: Segmented, data: bytes | None) -> str:
        if data is None:
            done, png = cv2.imencode(".png", of.image[..., ::-1])
            assert done
            data = png.tobytes()
        suffix = next((suffix for magic, suffix in SUFFIX.items() if data.startswith(magic)), ".png")
        name = uuid.uuid4().hex + suffix
        note = {"file": name, "confidence": confidence, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._put(name, data)
        self._put(f"{name}.json", json.dumps(note).encode())
        return name

    def _put(self, name: str, data: bytes) -> None:
        (self._folder / f".{name}").write_bytes(data)
        os.replace(self._folder / f".{name}", self._folder / name)

    def _shrink(self) -> None:
        while len(self._heap) > self._most:
            _, easiest = heapq.heappop(self._heap)
            (self._folder / f"{easiest}.json").unlink(missing_ok=True)
            (self._folder / easiest).unlink(missing_ok=True)
