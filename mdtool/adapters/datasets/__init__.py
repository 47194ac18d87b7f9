"""Datasets of trades: Parquet, CSV and DBN files, one or many in folders that partition them."""

from __future__ import annotations

import importlib
from typing import Final

from mdtool.adapters.datasets.port import OpenWriter

__all__ = ["FORMATS", "open_writer"]

FORMATS: Final = {
    "parquet": "mdtool.adapters.datasets.parquet:ParquetWriter",
    "csv": "mdtool.adapters.datasets.csv:CsvWriter",
    "dbn": "mdtool.adapters.datasets.dbn:DbnWriter",
}
"""What writes a file of each format, which is its extension too; imported when it is asked for."""


def open_writer(file_format: str) -> OpenWriter:
    """Return what begins a file of a format, one of `FORMATS`."""
    module, _, name = FORMATS[file_format].partition(":")
    writer: OpenWriter = getattr(importlib.import_module(module), name)
    return writer
