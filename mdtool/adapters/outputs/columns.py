"""Parquet and Arrow files: records as columns, in groups."""

from __future__ import annotations

import io
from typing import Any, Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from mdtool.adapters.arrow_arrays import TIME, characters, decimals, named, numbers
from mdtool.adapters.outputs.destination import Destination
from mdtool.adapters.outputs.layout import Layout
from mdtool.core.errors import OutputError
from mdtool.core.instruments import Batch
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import Records
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.dbn_records import RECORD_TYPES

GROUP_RECORDS: Final = 1 << 17
"""Records in a row group or record batch, some ten megabytes, which are buffered."""

_SYMBOL: Final = "symbol"


def columns_of(records: Records, record_type: Any, is_pretty: bool, name: str) -> dict[str, Any]:
    """Return records as Arrow arrays by field, `length` left out.

    Parameters
    ----------
    records : structured array, shape (n,)
        Records of one layout.
    record_type : type
        The class of databento_dbn that has this layout.
    is_pretty : bool
        Whether prices become decimal128(19, 9) and times timestamp[ns, UTC], both null where DBN
        has no value; otherwise both are the integers of DBN.
    name : str
        What errors call the records.

    Raises
    ------
    OutputError
        When a text is not UTF-8.
    """
    return {
        field: _column(records[field], field, record_type if is_pretty else None, name)
        for field in record_type._ordered_fields  # noqa: SLF001 - it has no public name
    }


def _column(values: npt.NDArray[Any], field: str, pretty_type: Any, name: str) -> Any:
    if values.dtype.kind == "S":
        return _strings(values, f"{name}: {field}")
    if pretty_type is not None and field in pretty_type._timestamp_fields:  # noqa: SLF001
        times = values.view(np.int64)
        return numbers(times, TIME, times != -1)
    if pretty_type is not None and field in pretty_type._price_fields:  # noqa: SLF001
        return decimals(values, values != UNDEF_PRICE)
    return numbers(values)


class ColumnarOutput:
    """Records of one layout as columns under DBN's own names, `length` left out.

    Parameters
    ----------
    destination : Destination
    metadata : databento_dbn.Metadata
        Its dataset and schema become metadata of the file.
    maps_symbols : bool
        Whether the last column is `symbol`, null where an instrument has no name.
    is_pretty : bool
        Whether prices become decimal128(19, 9) and times timestamp[ns, UTC], both null where DBN
        has no value; otherwise both are the integers of DBN.

    Notes
    -----
    The subclasses say only how a writer of their format is made.
    """

    def __init__(
        self,
        destination: Destination,
        metadata: dbn.Metadata,
        maps_symbols: bool,
        is_pretty: bool,
    ) -> None:
        self._destination = destination
        self._file = _File(destination)
        self._layout = Layout(metadata)
        self._about = {"dataset": metadata.dataset, "schema": str(metadata.schema or "")}
        self._maps_symbols = maps_symbols
        self._is_pretty = is_pretty
        self._held: list[Any] = []
        self._held_records = 0
        self._writer: Any = None

    def write(self, batch: Batch | Interleaved) -> None:
        """Buffer records until a group is full; records with other columns are skipped."""
        fitting = self._layout.fitting(batch)
        if fitting is None:
            return
        if isinstance(fitting, Interleaved):
            fitting = fitting.as_batch()
        self._held.append(self._columns(fitting.records, fitting))
        self._held_records += len(fitting)
        if self._held_records >= GROUP_RECORDS:
            self._write_group()

    def flush(self) -> None:
        """Do nothing: the file can be read once it is complete."""

    def close(self) -> None:
        """Write the buffered records and the end of the file, and close it."""
        if self._held:
            self._write_group()
        if self._writer is None:
            self._open(self._columns(self._no_records()).schema)
        self._writer.close()
        self._layout.report(self._destination.name)
        self._destination.close()

    def _make_writer(self, file: io.RawIOBase, schema: Any) -> Any:
        raise NotImplementedError

    def _write_group(self) -> None:
        group = pa.Table.from_batches(self._held).combine_chunks()
        if self._writer is None:
            self._open(group.schema)
        self._writer.write_table(group)
        self._held, self._held_records = [], 0

    def _open(self, schema: Any) -> None:
        self._writer = self._make_writer(self._file, schema.with_metadata(self._about))

    def _no_records(self) -> Records:
        dtype = self._layout.dtype
        return np.empty(0, dtype if dtype is not None else np.dtype([]))

    def _columns(self, records: Records, batch: Batch | None = None) -> Any:
        rtype = self._layout.rtype
        if rtype is None:
            return pa.RecordBatch.from_arrays([], names=[])
        columns = columns_of(records, RECORD_TYPES[rtype], self._is_pretty, self._destination.name)
        if self._maps_symbols:
            indices = batch.instrument if batch is not None else np.empty(0, np.uint32)
            labels = batch.instruments.labels if batch is not None else ()
            columns[_SYMBOL] = named(labels, indices)
        return pa.RecordBatch.from_arrays([*columns.values()], names=[*columns])


class ParquetOutput(ColumnarOutput):
    """A Parquet file."""

    def _make_writer(self, file: io.RawIOBase, schema: Any) -> Any:
        return pyarrow.parquet.ParquetWriter(file, schema, compression="zstd")


class ArrowOutput(ColumnarOutput):
    """An Arrow IPC file."""

    def _make_writer(self, file: io.RawIOBase, schema: Any) -> Any:
        return pyarrow.ipc.new_file(file, schema)


class _File(io.RawIOBase):
    """A destination as the file object that pyarrow writes to."""

    def __init__(self, destination: Destination) -> None:
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


def _strings(values: npt.NDArray[np.bytes_], where: str) -> Any:
    try:
        return characters(values)
    except pa.ArrowInvalid as error:
        raise OutputError(f"{where} is not text ({error})") from error
