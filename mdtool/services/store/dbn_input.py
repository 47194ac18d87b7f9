"""The trades of DBN files as rows for a store; each file is a stream, identified by its content."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.adapters.dbn_files import MergedSource, are_many, dbn_files, open_source
from mdtool.adapters.dbn_select import TRADES, SchemaSource, Selection, selected
from mdtool.adapters.dbn_source import RecordSource
from mdtool.adapters.dbn_trades import TradeSource
from mdtool.adapters.numbered_trades import NUMBERED, CountedOnce, NumberedTrades
from mdtool.core.batch import Batch, LabelMap
from mdtool.core.errors import InputError, UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.symbols import SymbolMap, SymbolTable, normal_symbol
from mdtool.core.trades import Reason, Trades
from mdtool.core.units import MIN_TIMESTAMP_NS, UNDEF_ORDER_SIZE, UNDEF_PRICE
from mdtool.wire.frames import MAX_STREAM_ID_CHARS, is_stream_id

_DIGEST_MARK: Final = "#"


class DbnInput:
    """The trades of DBN files as rows, in order of time.

    Each file is a stream of its own, named by its first trades, so that it is recognised when it is
    read again, merged with others, or in part.

    Parameters
    ----------
    paths : sequence of str
        At least one; `-` at most once.
    selection : Selection, optional
        The symbols and times to read.
    name : str, optional
        The name of the stream, of a single file.
    schema : str, optional
        The only schema to take trades of.

    Attributes
    ----------
    rejected : Counter of Reason
        Trades of the selection that stores do not accept, by reason.

    Raises
    ------
    UsageError
        When standard input is named twice, or the name is not valid.
    InputError
        When a file cannot be read, or holds no trades.
    """

    def __init__(
        self,
        paths: Sequence[str],
        selection: Selection | None = None,
        name: str | None = None,
        schema: str | None = None,
    ) -> None:
        files = dbn_files(paths)
        _check(files, name)
        self.rejected: Counter[Reason] = Counter()
        self.streams = SymbolTable()
        instruments = Instruments()
        many = are_many(files)
        with contextlib.ExitStack() as opened:
            numbered = []
            for stream, file in enumerate(files):
                source = opened.enter_context(open_source(file, instruments, many))
                of_schema = source if schema in {None, TRADES} else SchemaSource(source, schema)
                numbered.append(NumberedTrades(TradeSource(of_schema), stream))
            self._source = selected(_merged(numbered), selection)
            self._streams = numbered
            opened.pop_all()
        self._name = name
        self._stream_of = np.empty(0, np.uint32)
        self._symbols = SymbolTable()
        self._map = LabelMap(self._intern)

    @property
    def name(self) -> str:
        """The name of the input in messages."""
        return self._source.name

    @property
    def size_bytes(self) -> int | None:
        """The number of bytes to read, None where it is not known."""
        return self._source.size_bytes

    @property
    def bytes_read(self) -> int:
        """The number of bytes that were read."""
        return self._source.bytes_read

    def identify(self, known: Sequence[str]) -> None:
        """Wait for the first trades of each stream, which name it.

        Parameters
        ----------
        known : sequence of str
            The streams of the store.

        Raises
        ------
        InputError
            When a stored stream of the same name begins with other trades.
        """
        stem = f"{self._name or 'dbn'}{_DIGEST_MARK}"
        stored = frozenset(known)
        indices = []
        for stream in self._streams:
            names = [stem + digest for digest in stream.digests()]
            # The stored part may have had fewer trades than the digest has now.
            stream_id = next((name for name in reversed(names) if name in stored), names[-1])
            if self._name is not None:
                other = next((k for k in known if k.startswith(stem) and k != stream_id), None)
                if other is not None:
                    raise InputError(
                        f"{stream.name}: begins with other trades than the stored stream "
                        f"{self._name!r}; give another --stream-id"
                    )
            indices.append(self.streams.intern(stream_id))
        self._stream_of = np.array(indices, np.uint32)

    def rows(self) -> Iterator[TradeRows]:
        """Yield rows that a store accepts.

        Raises
        ------
        CorruptStreamError
            Where a file breaks off, after the rows before.
        """
        for batch in self._source:
            if batch.records.dtype == NUMBERED and len(batch):
                rows = self._rows(batch)
                if len(rows):
                    yield rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._source.close()

    def _rows(self, batch: Batch) -> TradeRows:
        trades, symbol = batch.records, self._map.map(batch)
        self._give_lots(batch.instruments.lots)
        times = trades["ts_event"].view(np.int64)
        received = trades["ts_recv"].view(np.int64)
        wrong = {
            Reason.SYMBOL: symbol == SymbolMap.MISSING,
            Reason.PRICE: trades["price"] == UNDEF_PRICE,
            Reason.VOLUME: (trades["size"] == 0) | (trades["size"] == UNDEF_ORDER_SIZE),
            Reason.TIMESTAMP: times < MIN_TIMESTAMP_NS,
        }
        rows = TradeRows(
            symbols=self._symbols,
            streams=self.streams,
            stream=self._stream_of[trades["stream"]],
            sequence=trades["number"],
            trades=Trades(
                symbol,
                price=trades["price"],
                size=trades["size"].astype(np.int64),
                ts_event=times,
                ts_recv=np.where(received > 0, received, times),
            ),
        )
        return rows[self._accepted(len(trades), wrong)]

    def _give_lots(self, lots: Mapping[str, int]) -> None:
        for symbol, lot in lots.items():
            if (index := self._symbols.find(normal_symbol(symbol) or "")) is not None:
                self._symbols.give_lot(index, lot)

    def _accepted(self, count: int, wrong: dict[Reason, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Return which trades have nothing wrong; count the others by their first reason."""
        accepted = np.ones(count, np.bool_)
        for reason, chosen in wrong.items():
            rejected = int(np.count_nonzero(accepted & chosen))
            if rejected:
                self.rejected[reason] += rejected
                accepted &= ~chosen
        return accepted

    def _intern(self, symbol: str) -> int | None:
        """Return the index of a symbol as stores write it, None for one that they do not accept."""
        text = normal_symbol(symbol)
        return None if text is None else self._symbols.intern(text)


def _merged(numbered: Sequence[NumberedTrades]) -> RecordSource:
    """Return the trades of several files, each once where files of several schemas show it."""
    if len(numbered) == 1:
        return numbered[0]
    merged = MergedSource(numbered)
    # Without a schema in its header, a file may have any of them.
    return CountedOnce(merged) if merged.metadata.schema is None else merged


def _check(paths: Sequence[str], name: str | None) -> None:
    if name is None:
        return
    if len(paths) > 1:
        raise UsageError("--stream-id names one stream: give one INPUT")
    longest = MAX_STREAM_ID_CHARS - 17
    if not is_stream_id(name) or len(name) > longest or _DIGEST_MARK in name:
        raise UsageError(f"--stream-id {name!r}: give 1 to {longest} characters without '#'")
