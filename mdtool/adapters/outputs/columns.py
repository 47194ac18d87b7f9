"""Parquet and Arrow files: records as columns, in groups."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from mdtool.adapters.arrow_arrays import (
    LOTS,
    TIME,
    characters,
    coded_characters,
    coded_names,
    decimals,
    floats,
    lots_text,
    named,
    numbers,
)
from mdtool.adapters.outputs.destination import Writer
from mdtool.adapters.outputs.layout import Layout
from mdtool.core.batch import Batch
from mdtool.core.errors import OutputError
from mdtool.core.instruments import Instruments
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import Records
from mdtool.core.units import PRICE_SCALE, UNDEF_PRICE
from mdtool.wire.dbn_records import shown_types

GROUP_RECORDS: Final = 1 << 17
"""Records in a row group or record batch, some ten megabytes, which are buffered."""

_BLOCK_RECORDS: Final = 1 << 13
_PRICES: Final[dict[str, Callable[..., Any]]] = {
    "decimal": decimals,
    "float": floats,
    "int": numbers,
}
_SYMBOL: Final = "symbol"
_PUBLISHER: Final = "publisher"
_RISING: Final = ("sequence", "ts_in_delta")
"""Numbers of which Parquet stores the differences, as of times."""
_UNIQUE: Final = {"order_id"}


def columns_of(
    records: Records | Mapping[str, npt.NDArray[Any]],
    record_type: Any,
    name: str,
    *,
    prices: str = "decimal",
    is_coded: bool = False,
) -> dict[str, Any]:
    """Return records as Arrow arrays by field, `length` left out.

    Times become timestamp[ns, UTC]. They and prices are null where DBN has no value.

    Parameters
    ----------
    records : structured array, shape (n,), or arrays by field
        Records of one layout.
    record_type : type
        The class of databento_dbn that has this layout.
    name : str
        What errors call the records.
    prices : str
        What prices become, one of `PRICES`: decimal128(19, 9), doubles, or DBN's integers.
    is_coded : bool
        Whether characters become dictionary arrays; else strings.

    Raises
    ------
    OutputError
        When a text is not UTF-8.
    """
    columns = {}
    for field in record_type._ordered_fields:  # noqa: SLF001 - it has no public name
        values = records[field]
        if values.dtype.kind == "S":
            columns[field] = _strings(values, is_coded, f"{name}: {field}")
        elif field in record_type._timestamp_fields:  # noqa: SLF001
            times = values.view(np.int64)
            columns[field] = numbers(times, TIME, _known(times != -1))
        elif field in record_type._price_fields:  # noqa: SLF001
            columns[field] = _PRICES[prices](values, known=_known(values != UNDEF_PRICE))
        else:
            columns[field] = numbers(values)
    return columns


def _strings(values: npt.NDArray[np.bytes_], is_coded: bool, where: str) -> Any:
    try:
        if is_coded and values.itemsize == 1:
            return coded_characters(values)
        return characters(values)
    except pa.ArrowInvalid as error:
        raise OutputError(f"{where} is not text ({error})") from error


def _known(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """Return which values are known, None where all are."""
    return None if known.all() else known


class _Group:
    """The records of a group by field, filled in small blocks that stay in a core's cache."""

    def __init__(self, record_type: Any) -> None:
        dtype = np.dtype(record_type._dtypes)  # noqa: SLF001 - it has no public name
        fields = record_type._ordered_fields  # noqa: SLF001
        self._columns = {name: np.empty(GROUP_RECORDS, dtype[name]) for name in fields}
        self._instrument = np.empty(GROUP_RECORDS, np.uint32)
        self.instruments = Instruments()
        self.n_records = 0

    @property
    def is_full(self) -> bool:
        return self.n_records == GROUP_RECORDS

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        return {name: column[: self.n_records] for name, column in self._columns.items()}

    @property
    def instrument(self) -> npt.NDArray[np.uint32]:
        return self._instrument[: self.n_records]

    def fill(self, batch: Batch) -> int:
        """Take the first records of a batch, as many as a block and the group have room for."""
        n = min(len(batch), _BLOCK_RECORDS, GROUP_RECORDS - self.n_records)
        part = slice(self.n_records, self.n_records + n)
        records = batch.records[:n]
        for name, column in self._columns.items():
            column[part] = records[name]
        self._instrument[part] = batch[:n].instrument
        self.instruments = batch.instruments
        self.n_records += n
        return n


class ColumnarOutput:
    """Records of one layout as columns under DBN's own names, `length` left out, and `symbol`.

    The symbol is null where an instrument has no name.

    Parameters
    ----------
    destination : Writer
    layout : Layout
    metadata : databento_dbn.Metadata
        Its dataset and schema become metadata of the file, as do lots of the records' symbols; it
        tells whether there is `ts_out`.
    prices : str
        What prices become, one of `PRICES`.
    has_publishers : bool
        Whether the name of the `publisher` follows.

    Notes
    -----
    A subclass makes the writer of its format, and sets `is_coded` if that takes dictionary arrays.
    """

    is_coded = False

    def __init__(
        self,
        destination: Writer,
        layout: Layout,
        metadata: dbn.Metadata,
        prices: str,
        has_publishers: bool = False,
    ) -> None:
        self._destination = destination
        self._file = _File(destination)
        self._layout = layout
        self._about = {"dataset": metadata.dataset, "schema": str(metadata.schema or "")}
        self._prices = prices
        self._has_publishers = has_publishers
        self._has_ts_out = metadata.ts_out
        self._group: _Group | None = None
        self._writer: Any = None

    def write(self, batch: Batch | Interleaved) -> None:
        """Buffer records until a group is full; records with other columns are skipped."""
        fitting = self._layout.fitting(batch)
        if fitting is None:
            return
        if isinstance(fitting, Interleaved):
            fitting = fitting.as_batch()
        if self._has_ts_out:
            fitting = fitting.with_ts_out()
        if self._group is None:
            self._group = _Group(self._record_type)
        while len(fitting):
            fitting = fitting[self._group.fill(fitting) :]
            if self._group.is_full:
                self._write_group(self._group)

    def flush(self) -> None:
        """Do nothing: the file can be read once it is complete."""

    def close(self) -> None:
        """Write the buffered records and the end of the file, and close it."""
        if self._group is None and self._record_type is not None:
            self._group = _Group(self._record_type)
        if self._group is not None and (self._group.n_records or self._writer is None):
            self._write_group(self._group)
        if self._writer is None:
            self._open(pa.table({}).schema)
        self._writer.close()
        self._layout.report(self._destination.name)
        self._destination.close()

    @property
    def _record_type(self) -> Any:
        """databento_dbn's class of the records, None until it is known."""
        rtype = self._layout.rtype
        return None if rtype is None else shown_types(self._has_ts_out)[rtype]

    def _make_writer(self, file: io.RawIOBase, schema: Any) -> Any:
        raise NotImplementedError

    def _write_group(self, group: _Group) -> None:
        table = self._table(group)
        if self._writer is None:
            lots = group.instruments.lots
            if any(lot != PRICE_SCALE for lot in lots.values()):
                self._about[LOTS] = lots_text(lots)
            self._open(table.schema)
        if len(table):
            self._writer.write_table(table)
        group.n_records = 0

    def _open(self, schema: Any) -> None:
        self._writer = self._make_writer(self._file, schema.with_metadata(self._about))

    def _table(self, group: _Group) -> Any:
        columns = columns_of(
            group.columns,
            self._record_type,
            self._destination.name,
            prices=self._prices,
            is_coded=self.is_coded,
        )
        names = coded_names if self.is_coded else named
        columns[_SYMBOL] = names(group.instruments.labels, group.instrument)
        if self._has_publishers:
            columns[_PUBLISHER] = names(group.instruments.publishers, group.instrument)
        return pa.table(columns)


class ParquetOutput(ColumnarOutput):
    """A Parquet file."""

    is_coded = True

    def _make_writer(self, file: io.RawIOBase, schema: Any) -> Any:
        # Dictionaries cost half of all time where values hardly repeat.
        times = getattr(self._record_type, "_timestamp_fields", ())
        rising = {*times, *_RISING}
        repeats = [name for name in schema.names if name not in rising | _UNIQUE]
        writer = pyarrow.parquet.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=repeats,
            column_encoding={
                name: "DELTA_BINARY_PACKED" for name in schema.names if name in rising
            },
            write_batch_size=_BLOCK_RECORDS,
            store_schema=False,  # so that what is coded here is read as strings
        )
        writer.add_key_value_metadata(schema.metadata)
        return writer


class ArrowOutput(ColumnarOutput):
    """An Arrow IPC file."""

    def _make_writer(self, file: io.RawIOBase, schema: Any) -> Any:
        return pyarrow.ipc.new_file(file, schema)


class _File(io.RawIOBase):
    """A destination as the file object that pyarrow writes to."""

    def __init__(self, destination: Writer) -> None:
        self._destination = destination
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(memoryview(data))
        self._destination.write(data)
        self._written += size
        return size

    def tell(self) -> int:
        return self._written
