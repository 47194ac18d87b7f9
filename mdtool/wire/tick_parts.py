"""Runs of ticks cut into parts, one for each partition of a topic, each a message by itself."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.admission import check_stream, check_symbol, check_ticks
from mdtool.wire.batches import BatchError, decode_batch, encode_batch
from mdtool.wire.ticks import Ticks

MAX_PART_FRAMES: Final = 1 << 15
"""How many frames a run may have to be split: each part of it is shorter than 4 MiB, whatever its
symbols are."""


def partition_of(name: str, partitions: int) -> int:
    """Return the partition of a symbol, or of what a stream has that is of no symbol."""
    return zlib.crc32(name.encode()) % partitions


@dataclass(frozen=True, slots=True)
class Part:
    """Those frames of a run of a stream that one partition has.

    Attributes
    ----------
    stream_id : str
        The stream.
    first_sequence : int
        The sequence of the run's first frame.
    symbols : SymbolTable
        What the symbol indices of `ticks` point into.
    ticks : Ticks
        `frames` is that of the run; offsets rise, and some are absent.
    """

    stream_id: str
    first_sequence: int
    symbols: SymbolTable
    ticks: Ticks


class PartEncoder:
    """Splits runs by the partition of their symbols.

    Parameters
    ----------
    symbols : SymbolTable
        What the symbol indices of ticks mean; it may grow.
    partitions : int
        How many there are.
    """

    def __init__(self, symbols: SymbolTable, partitions: int) -> None:
        self._symbols = symbols
        self._partitions = partitions
        self._partition_of = np.empty(0, np.uint16)

    def encode(
        self, stream_id: str, first_sequence: int, ticks: Ticks
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the partitions that get something of a run, and what each gets, as bytes.

        Refused frames are the part of the stream's own partition.

        Parameters
        ----------
        stream_id : str
            The stream.
        first_sequence : int
            The sequence of the run's first frame.
        ticks : Ticks
            The run, of at most `MAX_PART_FRAMES` frames.
        """
        if new := self._symbols.since(len(self._partition_of)):
            partitions = [partition_of(symbol, self._partitions) for symbol in new]
            self._partition_of = np.append(self._partition_of, np.array(partitions, np.uint16))
        refusing = partition_of(stream_id, self._partitions) if len(ticks.refused_offset) else -1
        for partition, part in self._split(ticks, refusing):
            symbol, symbols = self._own_symbols(part.symbol)
            message = encode_batch(stream_id, first_sequence, replace(part, symbol=symbol), symbols)
            if len(part) < part.frames:
                message.offset = part.offset.astype("<u4", copy=False).tobytes()
            yield partition, message.SerializeToString()

    def _split(self, ticks: Ticks, refusing: int) -> Iterator[tuple[int, Ticks]]:
        """Yield the frames of each partition; the refused ones are of partition `refusing`."""
        accepted = replace(
            ticks, refused_offset=ticks.refused_offset[:0], refused_reason=ticks.refused_reason[:0]
        )
        of_tick = self._partition_of[ticks.symbol]
        sizes = np.bincount(of_tick, minlength=self._partitions)
        order = np.argsort(of_tick, kind="stable")
        ends = np.cumsum(sizes)
        for partition in np.flatnonzero(sizes).tolist():
            chosen = order[ends[partition] - sizes[partition] : ends[partition]]
            run = ticks if partition == refusing else accepted
            yield partition, run.chosen(chosen)
        if refusing >= 0 and sizes[refusing] == 0:
            yield refusing, ticks.chosen(order[:0])

    def _own_symbols(self, symbol: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], list[str]]:
        """Return indices into a table of those symbols alone, and that table."""
        is_there = np.zeros(len(self._partition_of), np.bool_)
        is_there[symbol] = True
        indices = np.flatnonzero(is_there)
        place = np.empty(len(is_there), np.uint32)
        place[indices] = np.arange(len(indices), dtype=np.uint32)
        return place[symbol], [self._symbols[index] for index in indices.tolist()]


def decode_part(data: bytes) -> Part:
    """Return a part that a `PartEncoder` wrote; columns are read-only views of it, where they can.

    Raises
    ------
    BatchError
        When it is none: what it has is no TickBatch, or its columns contradict each other.
    """
    try:
        message = marketdata_pb2.TickBatch.FromString(data)
    except DecodeError as error:
        raise BatchError(f"record of {len(data):,} bytes is no TickBatch") from error
    symbols = SymbolTable()
    stream_id, first_sequence, ticks = decode_batch(message, symbols, is_part=True)
    return Part(stream_id, first_sequence, symbols, ticks)


class PartReader:
    """Reads the parts of one partition, with one table of symbols for all of them.

    Parameters
    ----------
    partition : int
        Its number.
    partitions : int
        How many there are.

    Attributes
    ----------
    symbols : SymbolTable
        What the symbols of all parts that were read are indices of.
    """

    def __init__(self, partition: int, partitions: int) -> None:
        self.symbols = SymbolTable()
        self._partition = partition
        self._partitions = partitions

    def read(self, data: bytes) -> Part:
        """Return a part; its symbols are those of the table.

        Raises
        ------
        BatchError
            When it is none, has what no ingest server takes, or belongs into another partition.
        """
        part = decode_part(data)
        check_stream(part.stream_id, part.first_sequence, part.ticks.frames)
        check_ticks(part.ticks)
        for symbol in part.symbols:
            if self.symbols.find(symbol) is None:
                check_symbol(symbol)
                self._check_place(symbol)
        indices = np.array([self.symbols.intern(symbol) for symbol in part.symbols], np.uint32)
        ticks = replace(part.ticks, symbol=indices[part.ticks.symbol])
        return Part(part.stream_id, part.first_sequence, self.symbols, ticks)

    def _check_place(self, symbol: str) -> None:
        place = partition_of(symbol, self._partitions)
        if place != self._partition:
            raise BatchError(f"symbol {symbol} belongs into partition {place}")
