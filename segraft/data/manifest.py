"""The manifest: what validate measured of each sample, one Parquet row a sample; augment and reports read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from segraft.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FILES = {"source": "source.parquet", "target": "target.parquet"}
"""Dataset → its file in the manifest folder."""


def schema() -> pa.Schema:
    """Columns and types of a manifest; sizes are pixels after EXIF rotation, paths are relative to the dataset."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("split", pa.string()),
            ("group", pa.string()),
            ("tags", pa.list_(pa.string())),
            ("image", pa.string()),
            ("mask", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("image_format", pa.string()),
            ("image_mode", pa.string()),
            ("mask_mode", pa.string()),
            ("image_bytes", pa.int64()),
            ("image_sha256", pa.string()),
            ("mask_sha256", pa.string()),
            ("pixels_sha256", pa.string()),
            ("dhash", pa.uint64()),
            ("class_pixels", pa.list_(pa.int64())),
            ("ignore_pixels", pa.int64()),
            ("mean", pa.list_(pa.float32())),
            ("std", pa.list_(pa.float32())),
        ]
    )


def manifest_file(folder: Path, dataset: str) -> Path:
    """The Parquet file of `source` or `target`.

    Raises:
        UserError: there is none.
    """
    path = folder / FILES[dataset]
    if not path.is_file():
        raise UserError(f"{path}: no such file; the validate step writes it: give the folder that it wrote")
    return path


def read_rows(folder: Path, dataset: str) -> list[dict[str, Any]]:
    """The manifest of `source` or `target` as plain rows, without pandas."""
    from pyarrow.parquet import ParquetFile  # read_table would import pandas

    with ParquetFile(manifest_file(folder, dataset)) as file:
        rows: list[dict[str, Any]] = file.read().to_pylist()
    return rows


def read_manifest(folder: Path, dataset: str) -> pd.DataFrame:
    """The manifest of `source` or `target`, a row a sample, in the order of `list_samples`."""
    import pandas as pd

    return pd.read_parquet(manifest_file(folder, dataset))
