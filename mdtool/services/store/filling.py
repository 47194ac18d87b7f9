"""Fills a store with the trades of DBN streams, each known by what it begins with."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.byte_source import STDIN
from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.dbn_merge import MergedSource
from mdtool.adapters.dbn_select import SchemaSource, Selection, selected
from mdtool.adapters.numbered_trades import NUMBERED, NumberedTrades
from mdtool.core.errors import InputError, UsageError
from mdtool.core.records import Records
from mdtool.core.symbols import SymbolTable, normal_symbol
from mdtool.core.trades import Reason
from mdtool.core.units import MIN_TIMESTAMP_NS, UNDEF_ORDER_SIZE, UNDEF_PRICE
from mdtool.wire.control import MAX_STREAM_ID_CHARS, is_stream_id

_TRADES: Final = "trades"
_DIGEST_MARK: Final = "#"
_UNUSABLE: Final = 2**32 - 1
"""Stands for a symbol that no trade may have."""


class DbnInput:
    """The trades of DBN files as rows to keep, in order of time.

    Each file is a stream of its own, named by its first trades, so that it is known again however
    it is read: merged with others, or a part of it.

    Parameters
    ----------
    paths : sequence of str
        At least one; `-` at most once.
    selection : Selection, optional
        Which symbols and times are wanted.
    name : str, optional
        The stream's name, of one file.

    Attributes
    ----------
    left_out : Counter of Reason
        Trades of the selection that no store takes, by why.

    Raises
    ------
    UsageError
        When standard input is named twice, or a name cannot be one.
    InputError
        When a file cannot be read, or holds no trades.
    """

    def __init__(
        self, paths: Sequence[str], selection: Selection | None = None, name: str | None = None
    ) -> None:
        _check(paths, name)
        self.left_out: Counter[Reason] = Counter()
        self.streams = SymbolTable()
        with contextlib.ExitStack() as opened:
            numbered = []
            for stream, path in enumerate(paths):
                source = opened.enter_context(open_source(path))
                trades = NumberedTrades(SchemaSource(source, _TRADES), stream)
                numbered.append(trades)
            merged = numbered[0] if len(numbered) == 1 else MergedSource(numbered)
            self._source = selected(merged, selection)
            self._streams = numbered
            opened.pop_all()
        self._name = name
        self._stream_of = np.empty(0, np.uint32)
        self._symbols = SymbolTable()
        self._symbol_of = np.empty(0, np.uint32)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._source.name

    @property
    def size_bytes(self) -> int | None:
        """How many bytes there are to read in all, None where that is not known."""
        return self._source.size_bytes

    @property
    def bytes_read(self) -> int:
        """How many of them have been read."""
        return self._source.bytes_read

    def identify(self, known: Sequence[str]) -> None:
        """Wait for the first trades of each stream, and name it by them.

        Parameters
        ----------
        known : sequence of str
            The streams of the store.

        Raises
        ------
        InputError
            When the store has a stream of the same name that begins with other trades.
        """
        stem = f"{self._name or 'dbn'}{_DIGEST_MARK}"
        stored = frozenset(known)
        indices = []
        for stream in self._streams:
            names = [stem + digest for digest in stream.digests()]
            # A beginning may have been stored that had fewer trades than are looked at.
            stream_id = next((name for name in reversed(names) if name in stored), names[-1])
            if self._name is not None:
                other = next((k for k in known if k.startswith(stem) and k != stream_id), None)
                if other is not None:
                    raise InputError(
                        f"{stream.name}: begins with other trades than the stream "
                        f"{self._name!r} that is stored; give it another --stream-id"
                    )
            indices.append(self.streams.intern(stream_id))
        self._stream_of = np.array(indices, np.uint32)

    def rows(self) -> Iterator[TradeRows]:
        """Yield rows that a store takes.

        Raises
        ------
        CorruptStreamError
            Where a file breaks off, after all that came before.
        """
        for records in self._source:
            if records.dtype == NUMBERED and len(records):
                rows = self._rows(records)
                if len(rows):
                    yield rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._source.close()

    def _rows(self, trades: Records) -> TradeRows:
        indices, table = self._source.symbology.symbols_of(trades)
        symbol = self._known_symbols(table)[indices]
        times = trades["ts_event"].view(np.int64)
        received = trades["ts_recv"].view(np.int64)
        wrong = {
            Reason.SYMBOL: symbol == _UNUSABLE,
            Reason.PRICE: (trades["price"] <= 0) | (trades["price"] == UNDEF_PRICE),
            Reason.VOLUME: (trades["size"] == 0) | (trades["size"] == UNDEF_ORDER_SIZE),
            Reason.TIMESTAMP: times < MIN_TIMESTAMP_NS,
        }
        rows = TradeRows(
            symbols=self._symbols,
            streams=self.streams,
            symbol=symbol,
            stream=self._stream_of[trades["stream"]],
            sequence=trades["number"],
            price=trades["price"],
            volume=trades["size"].astype(np.int64),
            exchange_timestamp=times,
            ingest_timestamp=np.where(received > 0, received, times),
        )
        return rows.take(self._usable(len(trades), wrong))

    def _usable(self, count: int, wrong: dict[Reason, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return which trades have nothing wrong with them; count the others by the first thing."""
        usable = np.ones(count, np.bool_)
        for reason, chosen in wrong.items():
            left_out = int(np.count_nonzero(usable & chosen))
            if left_out:
                self.left_out[reason] += left_out
                usable &= ~chosen
        return usable

    def _known_symbols(self, table: SymbolTable) -> NDArray[np.uint32]:
        """Return the indices of a table's symbols as stores write them."""
        new = [self._symbol_index(symbol) for symbol in table.since(len(self._symbol_of))]
        if new:
            self._symbol_of = np.concatenate([self._symbol_of, np.array(new, np.uint32)])
        return self._symbol_of

    def _symbol_index(self, symbol: str) -> int:
        text = normal_symbol(symbol)
        return _UNUSABLE if text is None else self._symbols.intern(text)


def _check(paths: Sequence[str], name: str | None) -> None:
    if paths.count(STDIN) > 1:
        raise UsageError("standard input can be read once; give '-' once")
    if name is None:
        return
    if len(paths) > 1:
        raise UsageError("--stream-id names one stream: give one INPUT")
    longest = MAX_STREAM_ID_CHARS - 17
    if not is_stream_id(name) or len(name) > longest or _DIGEST_MARK in name:
        raise UsageError(f"--stream-id {name!r}: give 1 to {longest} characters without '#'")
