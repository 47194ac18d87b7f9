"""Datasets of trades: one file or folders of partitions, in Parquet, CSV or DBN."""

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
"""The writer of each format, whose name is also the extension; imported on first use."""


def open_writer(file_format: str) -> OpenWriter:
    """Return the writer of a format, one of `FORMATS`."""
    module, _, name = FORMATS[file_format].partition(":")
    writer: OpenWriter = getattr(importlib.import_module(module), name)
    return writer
