"""Where records are written: the port, what a user asked for, and the formats.

Each format's module is imported when it is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import databento_dbn as dbn

from mdtool.adapters.outputs.destination import Destination, Writer, ZstdDestination
from mdtool.adapters.outputs.layout import Layout
from mdtool.core.batch import Batch
from mdtool.core.errors import UsageError
from mdtool.core.interleaved import Interleaved

FORMATS: Final = (
    *("dbn", "dbn.zst", "csv", "csv.zst", "json", "json.zst", "jsonl", "jsonl.zst"),
    *("parquet", "arrow"),
)
"""Each is a file's extension too."""

ZSTD: Final = ".zst"

COLUMNAR: Final = frozenset({"parquet", "arrow"})
PRICES: Final = ("decimal", "float", "int")
"""What prices can become in Parquet and Arrow, by default the first."""


class Output(Protocol):
    """Where records are written, in batches or interleaved, of any length.

    An output to which nothing was written need not be closed.
    """

    def write(self, batch: Batch | Interleaved) -> None:
        """Write records: streams at once, columnar files once a group is full.

        Raises
        ------
        BrokenPipeError
            When the reader of the output has closed it.
        OutputError
            When it cannot be written for another reason.
        """
        ...

    def flush(self) -> None:
        """Write what is buffered, where the format can be read before its end."""
        ...

    def close(self) -> None:
        """Complete the output. What was written by then can be read, however little it is."""
        ...


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How and where records are to be written.

    Attributes
    ----------
    format : str
        One of `FORMATS`.
    path : str or None
        The file; None for standard output.
    replaces : bool
        Whether an existing file is replaced.
    maps_symbols : bool
        Whether text gets a `symbol`; Parquet and Arrow have one.
    is_pretty : bool
        Whether text has decimal prices and ISO-8601 times.
    prices : str
        What prices become in Parquet and Arrow, one of `PRICES`.
    is_staged : bool
        Whether the file appears only once it is complete.
    has_publishers : bool
        Whether text and columns get the name of the `publisher`.
    """

    format: str
    path: str | None = None
    replaces: bool = False
    maps_symbols: bool = False
    is_pretty: bool = False
    prices: str = PRICES[0]
    is_staged: bool = True
    has_publishers: bool = False

    @property
    def encoding(self) -> str:
        """How records are written, compressed or not."""
        return encoding_of(self.format)

    def open_destination(self) -> Writer:
        """Open the destination of the bytes.

        Raises
        ------
        OutputError
            When the file exists already or cannot be made.
        """
        destination = Destination(self.path, self.replaces, self.is_staged)
        return ZstdDestination(destination) if self.format.endswith(ZSTD) else destination


def encoding_of(file_format: str) -> str:
    """Return how records are written in one of `FORMATS`: `dbn`, `csv`, `json`, or in columns."""
    encoding = file_format.removesuffix(ZSTD)
    return "json" if encoding == "jsonl" else encoding


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


def open_output(spec: OutputSpec, metadata: dbn.Metadata, rtype: int | None = None) -> Output:
    """Open what `spec` asks for; a file appears when it is closed, or with the first record.

    Parameters
    ----------
    spec : OutputSpec
    metadata : databento_dbn.Metadata
        Of the records that will be written.
    rtype : int, optional
        Of these records, where it is known without a schema: their columns are there before them.

    Raises
    ------
    OutputError
        When the file exists already or cannot be made.
    """
    destination = spec.open_destination()
    if spec.encoding in COLUMNAR:
        from mdtool.adapters.outputs.columns import ArrowOutput, ParquetOutput

        columnar = ParquetOutput if spec.encoding == "parquet" else ArrowOutput
        layout = Layout(metadata, rtype)
        return columnar(destination, layout, metadata, spec.prices, spec.has_publishers)
    from mdtool.adapters.outputs import streams
    from mdtool.wire.text import TextEncoder

    if spec.encoding == "dbn":
        return streams.DbnOutput(destination, metadata)
    encoder = TextEncoder(
        spec.encoding == "json",
        spec.maps_symbols,
        spec.is_pretty,
        spec.has_publishers,
        metadata.ts_out,
    )
    if spec.encoding == "csv":
        return streams.CsvOutput(destination, Layout(metadata, rtype), encoder)
    return streams.JsonOutput(destination, encoder)
