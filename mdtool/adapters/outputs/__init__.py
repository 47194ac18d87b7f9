"""Outputs by format, each in a module of its own that is imported when it is asked for."""

from __future__ import annotations

from typing import Final

import databento_dbn as dbn

from mdtool.adapters.outputs.destination import Destination
from mdtool.adapters.outputs.port import Output, OutputSpec
from mdtool.core.errors import UsageError
from mdtool.core.symbology import Symbology

__all__ = ["FORMATS", "Output", "OutputSpec", "format_of", "open_output"]

FORMATS: Final = ("dbn.zst", "dbn", "csv", "json", "parquet", "arrow")
"""Each is a file's extension too."""


def format_of(path: str) -> str:
    """Return the format that a file's extension names.

    Raises
    ------
    UsageError
        When it names none.
    """
    for extension in FORMATS:
        if path.endswith(f".{extension}"):
            return extension
    raise UsageError(
        f"{path}: name it .{', .'.join(FORMATS)}, or choose a format with -D, -C or -J"
    )


def open_output(
    spec: OutputSpec, metadata: dbn.Metadata, symbology: Symbology | None = None
) -> Output:
    """Open what `spec` asks for; a file is made with the first record, or when it is closed.

    Parameters
    ----------
    spec : OutputSpec
    metadata : databento_dbn.Metadata
        Of the records that will be written.
    symbology : Symbology, optional
        The source's own, where its mappings may grow; else that of `metadata`.

    Raises
    ------
    OutputError
        When the file exists already or cannot be made.
    """
    destination = Destination(spec.path, spec.replaces)
    mapped = (symbology or Symbology(metadata)) if spec.maps_symbols else None
    if spec.format == "dbn":
        from mdtool.adapters.outputs.dbn import DbnOutput

        return DbnOutput(destination, metadata)
    if spec.format == "dbn.zst":
        from mdtool.adapters.outputs.dbn import ZstdDbnOutput

        return ZstdDbnOutput(destination, metadata)
    if spec.format == "csv":
        from mdtool.adapters.outputs.text import CsvOutput

        return CsvOutput(destination, metadata, mapped, spec.is_pretty)
    if spec.format == "json":
        from mdtool.adapters.outputs.text import JsonOutput

        return JsonOutput(destination, mapped, spec.is_pretty)
    from mdtool.adapters.outputs.columns import ArrowOutput, ParquetOutput

    columnar = ParquetOutput if spec.format == "parquet" else ArrowOutput
    return columnar(destination, metadata, mapped, spec.is_pretty)
