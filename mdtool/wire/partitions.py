"""Runs of a stream split by the partitions of a topic, one record for each, and read back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from mdtool.core.lots import LotConverter
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import Frames, TradeRun
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import (
    BatchError,
    check_stream,
    check_symbol,
    check_trades,
    decode_batch,
    encode_batch,
)

MAX_RUN_FRAMES: Final = 1 << 15
"""The most frames of a run that is split: each record is shorter than 4 MiB, whatever its
symbols are."""


def partition_of(name: str, partitions: int) -> int:
    """Return the partition of a symbol, or of a stream's frames that have no symbol."""
    return zlib.crc32(name.encode()) % partitions


class PartitionEncoder:
    """Splits runs by the partitions of their symbols.

    Parameters
    ----------
    symbols : SymbolTable
        The table of the runs; it may grow.
    partitions : int
        How many there are.
    """

    def __init__(self, symbols: SymbolTable, partitions: int) -> None:
        self._symbols = symbols
        self._partitions = partitions
        self._map = SymbolMap(symbols, lambda symbol: partition_of(symbol, partitions))

    def encode(self, run: TradeRun) -> Iterator[tuple[int, bytes]]:
        """Yield each partition that has a part of a run, and that part as bytes.

        Refused frames go to the stream's own partition.

        Parameters
        ----------
        run : TradeRun
            Of at most `MAX_RUN_FRAMES` frames.
        """
        has_refused = len(run.frames.refused_offset) > 0
        refusing = partition_of(run.stream_id, self._partitions) if has_refused else -1
        for partition, frames in self._split(run.frames, refusing):
            own = SymbolTable()
            symbol = SymbolMap(self._symbols, own.intern).map(frames.trades.symbol)
            part = replace(run, frames=frames.with_symbols(symbol))
            own.give_lots(self._lots_of(own))
            yield partition, encode_batch(part, own, own.lots_since(0)).SerializeToString()

    def _lots_of(self, own: SymbolTable) -> dict[str, int]:
        """Return the lots of the symbols of a record."""
        if not self._symbols.lots:
            return {}
        found = ((name, self._symbols.lot(self._symbols.intern(name))) for name in own)
        return {name: lot for name, lot in found if lot is not None}

    def _split(self, frames: Frames, refusing: int) -> Iterator[tuple[int, Frames]]:
        """Yield the frames of each partition; the refused ones are in partition `refusing`."""
        accepted = replace(
            frames,
            refused_offset=frames.refused_offset[:0],
            refused_reason=frames.refused_reason[:0],
        )
        # Of 16 bits, a stable sort is a radix sort.
        of_trade = self._map.map(frames.trades.symbol).astype(np.uint16)
        sizes = np.bincount(of_trade, minlength=self._partitions)
        order = np.argsort(of_trade, kind="stable")
        ends = np.cumsum(sizes)
        for partition in np.flatnonzero(sizes).tolist():
            rows = order[ends[partition] - sizes[partition] : ends[partition]]
            yield partition, (frames if partition == refusing else accepted).select(rows)
        if refusing >= 0 and sizes[refusing] == 0:
            yield refusing, frames.select(order[:0])


def decode_record(data: bytes) -> TradeRun:
    """Return the part of a run that is in a record, with a table of its own.

    `frames.count` is that of the whole run; offsets rise, and some are absent. Columns are
    read-only views of `data`, where that can be.

    Raises
    ------
    BatchError
        When the record is not a TickBatch, or its columns contradict each other.
    """
    try:
        message = marketdata_pb2.TickBatch.FromString(data)
    except DecodeError as error:
        raise BatchError(f"record of {len(data):,} bytes is not a TickBatch") from error
    return decode_batch(message, SymbolTable(), is_part=True)


class PartitionDecoder:
    """Reads the records of one partition, with one table for all of them.

    Parameters
    ----------
    partition : int
        Its number.
    partitions : int
        How many there are.

    Attributes
    ----------
    symbols : SymbolTable
        The table of all runs that were decoded.
    """

    def __init__(self, partition: int, partitions: int) -> None:
        self.symbols = SymbolTable()
        self._partition = partition
        self._partitions = partitions

    def decode(self, data: bytes) -> TradeRun:
        """Return the part of a run that is in a record, as `decode_record` does.

        Raises
        ------
        BatchError
            When the record is not a TickBatch, has what no ingest server accepts, or belongs in
            another partition.
        """
        part = decode_record(data)
        check_stream(part.stream_id, part.first_sequence, part.frames.count)
        check_trades(part.trades)
        symbol = SymbolMap(part.symbols, self._intern).map(part.trades.symbol)
        lots = LotConverter(self.symbols)
        for index, lot in part.symbols.lots_since(0):
            lots.take(self._intern(part.symbols[index]), lot)
        frames = lots.convert(part.frames.with_symbols(symbol))
        return replace(part, symbols=self.symbols, frames=frames)

    def _intern(self, symbol: str) -> int:
        known = self.symbols.find(symbol)
        if known is not None:
            return known
        check_symbol(symbol)
        partition = partition_of(symbol, self._partitions)
        if partition != self._partition:
            raise BatchError(f"symbol {symbol} belongs in partition {partition}")
        return self.symbols.intern(symbol)
