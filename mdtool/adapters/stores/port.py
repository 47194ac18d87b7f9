"""The port to durable state: trades, what they changed and where they came from, in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.engine.saved_state import SAVED_BAR, SESSION, SavedState

MIN_NS: Final = -(2**63)
MAX_NS: Final = 2**63 - 1
"""Trades have exchange times from the first of these to before the second."""


class TradeKey(NamedTuple):
    """The key of a trade among those of its symbol, which orders them."""

    timestamp_ns: int
    """Exchange time."""
    stream: int
    """The store's own number of the trade's stream."""
    sequence: int
    """Its sequence in that stream."""


@dataclass(frozen=True, slots=True)
class StreamRun:
    """Consecutive frames of one stream, whose ticks were accepted or refused.

    A trade whose key is stored already is skipped and not counted.

    Attributes
    ----------
    stream_id : str
        The stream.
    first_sequence, next_sequence : int
        The sequence of the first frame, and the position of the stream after the run.
    sequence : int64[n]
        Of each trade, rising.
    trades : Trades
        Their symbols are indices into the step's table.
    is_part : bool
        Whether these are trades of any part of the stream, in any order, from a file or a dataset.
        Then the position of the stream is neither compared nor moved.
    """

    stream_id: str
    first_sequence: int
    next_sequence: int
    sequence: NDArray[np.int64]
    trades: Trades
    is_part: bool = False

    def __len__(self) -> int:
        """Return the number of trades."""
        return len(self.trades)


@dataclass(frozen=True, slots=True)
class Step:
    """What is written in one transaction.

    Sessions, bars and counts only move forward: a stored row that has more trades, or a later
    start, stays, so that writing a step again changes nothing. A session with fewer trades replaces
    the stored one only if its latest trade is later: it has rolled.

    Attributes
    ----------
    symbols : SymbolTable
        The names of symbol indices; it may have more than the step needs.
    runs : sequence of StreamRun
        In order; those of one stream follow each other.
    changed : uint32[k]
        The symbols whose sessions changed, each once.
    sessions : SESSION[k]
        Their sessions after the step.
    bars : SAVED_BAR[m]
        The bars that changed, as they are after the step: the open one of a series, and any number
        of closed ones, each once. Past sessions are among them, of `SESSION_LENGTH`.
    counts : mapping of str to int
        Totals by name, as they are after the step; they never fall.
    lots : mapping of int to int
        Lots of symbols in units of 1e-9, by index; a symbol that has one keeps it.
    """

    symbols: SymbolTable
    runs: Sequence[StreamRun]
    changed: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    sessions: NDArray[np.void] = field(default_factory=lambda: np.empty(0, SESSION))
    bars: NDArray[np.void] = field(default_factory=lambda: np.empty(0, SAVED_BAR))
    counts: Mapping[str, int] = field(default_factory=dict)
    lots: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TradePage:
    """Trades of one symbol in order of their keys, upwards or downwards.

    Attributes
    ----------
    stream, sequence : int64[n]
        Of their keys.
    trades : Trades
        Their symbol is 0.
    """

    stream: NDArray[np.int64]
    sequence: NDArray[np.int64]
    trades: Trades

    @classmethod
    def of(cls, table: NDArray[np.int64]) -> Self:
        """Return a page of columns as stores have them.

        Parameters
        ----------
        table : int64[6, n]
            Exchange time, stream, sequence, price, volume and ingest time.
        """
        ts_event, stream, sequence, price, size, ts_recv = np.ascontiguousarray(table)
        symbol = np.zeros(len(price), np.uint32)
        return cls(stream, sequence, Trades(symbol, price, size, ts_event, ts_recv))

    def __len__(self) -> int:
        """Return the number of trades."""
        return len(self.trades)

    def head(self, n: int) -> TradePage:
        """Return the first `n` of them."""
        return TradePage(self.stream[:n], self.sequence[:n], self.trades[:n])

    def key(self, row: int) -> TradeKey:
        """Return the key of one of them."""
        timestamp_ns = int(self.trades.ts_event[row])
        return TradeKey(timestamp_ns, int(self.stream[row]), int(self.sequence[row]))


class SymbolTotals(NamedTuple):
    """The totals of a symbol, which a store has without reading its trades."""

    symbol: str
    trade_count: int
    last_trade_at_ns: int
    """The latest exchange time of a trade."""
    lot: int = 0
    """What one unit of its sizes stands for, in units of 1e-9; 0 where that is unknown."""


class WrongTotals(NamedTuple):
    """The totals of a symbol that differ from those of its trades."""

    stored: SymbolTotals
    counted: SymbolTotals
    """0 and 0 for a symbol without trades."""


class SavedStream(NamedTuple):
    """A stored stream."""

    number: int
    """Its number in the keys of its trades."""
    stream_id: str
    next_sequence: int | None
    """None when only parts of the stream are stored, from files or datasets."""


class TradeHistory(Protocol):
    """Reads a store while others write it.

    Methods block, for a short time, and may be called by one thread at a time; `interrupt` may be
    called by another. A history is a context manager, which owns its connection and reconnects when
    it was lost.
    """

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets: `sqlite /data/trades.db`."""
        ...

    def __enter__(self) -> Self:
        """Prepare to connect; the store need not exist yet."""
        ...

    def __exit__(self, *exc_info: object) -> None:
        """Disconnect."""
        ...

    def symbols(self) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order.

        Raises
        ------
        StoreUnavailableError, StoreInterruptedError
            As all methods that read.
        """
        ...

    def has(self, symbol: str) -> bool:
        """Return whether the symbol has trades."""
        ...

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        """Return at most `limit` trades whose key is below `before`, newest first.

        The cost does not depend on how many are stored. A symbol without trades has an empty page.
        """
        ...

    def page_after(
        self, symbol: str, limit: int, after: TradeKey, end_ns: int = MAX_NS
    ) -> TradePage:
        """Return at most `limit` trades whose key is above `after`, oldest first.

        Parameters
        ----------
        symbol : str
        limit : int
        after : TradeKey
            `TradeKey(T, 0, 0)` is below all trades of the time T.
        end_ns : int
            Exchange time, exclusive.
        """
        ...

    def trades(
        self, symbol: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
    ) -> Iterator[TradePage]:
        """Yield all trades of a symbol, oldest first, in pages that are not empty.

        Trades that are written meanwhile may be among them; none is repeated. Other methods may be
        called between two pages.

        Parameters
        ----------
        symbol : str
        start_ns, end_ns : int
            Exchange times, the first inclusive and the last exclusive.
        """
        ...

    def streams(self) -> list[SavedStream]:
        """Return the streams, in order of their numbers."""
        ...

    def sequences(self) -> NDArray[np.int64]:
        """Return the sequences of all streams' trades; it reads the keys of all trades.

        Returns
        -------
        int64[3, n]
            The stream's number, and the first and the last sequence, of each run of consecutive
            sequences, in order.
        """
        ...

    def recount(self) -> list[WrongTotals]:
        """Read all trades, and return the symbols whose totals differ from them, in order.

        Raises
        ------
        StoreFormatError
            When the store is damaged.
        """
        ...

    def bars(
        self, symbol: str, interval_ns: int, limit: int, before_ns: int = 0
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start before `before_ns`, newest first.

        Parameters
        ----------
        symbol : str
            One without trades has no bars.
        interval_ns : int
            Their length.
        limit : int
            The largest number of bars.
        before_ns : int
            Exclusive; 0 means from the newest.

        Returns
        -------
        SAVED_BAR[m]
            `symbol` is 0.
        """
        ...

    def bars_from(
        self, symbol: str, interval_ns: int, limit: int, from_ns: int
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start at `from_ns` or later, oldest first."""
        ...

    def interrupt(self) -> None:
        """End the read of another thread, if there is one, with StoreInterruptedError."""
        ...


class Store(TradeHistory, Protocol):
    """Writes steps, each as one transaction, and reads.

    Several writers may write at once: each run is stored once, by the position of its stream, and
    the totals of a symbol only move forward. Sessions, bars and counts belong to one market, which
    holds the store by `claim`.

    After an error a store can be used again, and reconnects if needed. Entering it raises
    StoreUnavailableError where it cannot be reached, created or written, and StoreFormatError.
    """

    def claim(self) -> None:
        """Hold the store's market until the block ends, or this process does, however it ends.

        Raises
        ------
        StoreClaimedError
            When another process holds it.
        """
        ...

    def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return the state of the market, at a cost that does not depend on the trades.

        Parameters
        ----------
        max_streams : int
            The largest number of positions, of the streams written last.
        lateness_ns : int
            Closed bars are included that ended less than this before the start of the latest of
            their symbol's open bars.
        """
        ...

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream, None where none is stored."""
        ...

    def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is.

        When this returns, it is stored.

        Raises
        ------
        StoreUnavailableError, StoreError
            As `write`.
        """
        ...

    def write(self, step: Step) -> None:
        """Write a step; when this returns, it is stored whatever happens to this process.

        Frames of a run that are stored already are skipped, so that writing again what may have
        been written changes nothing.

        Raises
        ------
        StoreUnavailableError
            When it cannot be written now; nothing was written, and a retry may succeed.
        StoreGapError
            When frames before a run are missing; nothing was written.
        StoreError
            When a retry would not succeed.
        """
        ...

    def repair(self) -> list[WrongTotals]:
        """Correct what `recount` finds, in one transaction, and return it.

        Raises
        ------
        StoreUnavailableError, StoreFormatError
            As `write` and `recount`.
        """
        ...

    def prune(self, before_ns: int) -> int:
        """Delete trades of exchange times before that, and bars that ended by then.

        It is done in short transactions beside other writers. A symbol without later trades loses
        its session too; positions of streams stay.

        Returns
        -------
        int
            How many trades were deleted.

        Raises
        ------
        StoreUnavailableError
            As `write`; what was deleted stays so.
        """
        ...

    def replace_market(self, step: Step) -> int:
        """Write the sessions and bars of a step in place of all that its symbols have.

        It is one transaction, of a market that was claimed. Runs, counts and lots are not written.

        Returns
        -------
        int
            How many sessions and bars were other ones before.

        Raises
        ------
        StoreUnavailableError
            As `write`.
        """
        ...

    def used_bytes(self) -> int | None:
        """Return how many bytes are in use, None where deleting does not make that less."""
        ...


class Compacted(NamedTuple):
    """What compacting a store did."""

    moved: int
    """Trades that are in blocks now."""
    used_before: int
    used_after: int
    """Bytes in use."""
    given_back: int | None
    """Bytes that the file is smaller; None where a service has the store, so that it keeps them."""


class Care(Protocol):
    """Copies, restores and compacts a store that has no tools of its own; methods block."""

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets."""
        ...

    def back_up(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write what the store has at this moment into a new file, while others write the store."""
        ...

    def restore(
        self, path: Path, progress: Callable[[int, int], None], *, replaces: bool = False
    ) -> None:
        """Put a copy in place of the store, all of it or, after an error, nothing.

        Raises
        ------
        StoreClaimedError
            When a service or another command has the store.
        InputError
            When the copy cannot be read, or is no store or damaged.
        OutputError
            When the store has trades and may not be replaced.
        """
        ...

    def compact(self, progress: Callable[[int, int], None]) -> Compacted:
        """Join trades that came one by one, and give free space back."""
        ...
