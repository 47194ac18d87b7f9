"""The state of the market: sessions and bars by symbol, and the position of every stream in it.

Each tick enters once. What a batch changes and the position that it came from are one step, so
that whatever a peer sends again, split or joined as it likes, changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.session_kernel import COLUMNS, fold_sessions
from mdtool.engine.sessions import SESSION

Scalar = TypeVar("Scalar", bound=np.generic)

REASONS: Final = 6
"""Numbers of reasons for which a frame is refused, 0 (none) among them."""


class SequenceGapError(PeerError):
    """A batch begins beyond the position of its stream: something between was not sent."""


class TickColumns(Protocol):
    """A batch of accepted ticks as columns, and the frames of it that were refused."""

    @property
    def symbol(self) -> NDArray[np.uint32]:
        """Indices into the market's table of symbols, shape (n,)."""
        ...

    @property
    def price(self) -> NDArray[np.int64]:
        """Prices at 1e-9, above 0, shape (n,)."""
        ...

    @property
    def volume(self) -> NDArray[np.int64]:
        """Volumes, above 0, shape (n,)."""
        ...

    @property
    def exchange_timestamp(self) -> NDArray[np.int64]:
        """Exchange times in ns, shape (n,)."""
        ...

    @property
    def ingest_timestamp(self) -> NDArray[np.int64]:
        """Times in ns at which the ticks reached the ingest server, shape (n,)."""
        ...

    @property
    def frames(self) -> int:
        """How many sequences of the stream the batch covers, n and the refused ones."""
        ...

    @property
    def refused_reason(self) -> NDArray[np.uint8]:
        """Numbers of the reasons of the refused frames, shape (m,)."""
        ...

    def from_frame(self, frame: int) -> Self:
        """Return the batch without its first `frame` frames."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the state, all that a store has to write before the step is acknowledged."""

    stream_id: str | None
    """The stream that it came from, None for ticks of no stream."""
    next_sequence: int
    """The position of that stream after the step."""
    ticks: TickColumns
    """What was new in the batch."""
    symbols: NDArray[np.uint32]
    """The symbols that changed, each once."""


@dataclass(slots=True)
class Counts:
    """Totals since the state began."""

    ticks: int = 0
    duplicates: int = 0
    """Ticks that were sent again and left out."""
    refused: list[int] = field(default_factory=lambda: [0] * REASONS)
    """By the number of the reason."""


class Market:
    """Sessions and bars of every symbol, with the positions of the streams that made them.

    Parameters
    ----------
    bars : LiveBars
        The time bars, which the market keeps up to date.
    max_symbols : int
        How many symbols it takes.
    max_streams : int
        How many streams' positions it remembers. The stream that was silent for longest is
        forgotten first; a resend of it would then count as new.
    """

    def __init__(self, bars: LiveBars, max_symbols: int, max_streams: int) -> None:
        self.symbols = SymbolTable()
        self.bars = bars
        self.counts = Counts()
        self.commit = 0
        """The number of the latest step, from 1."""
        self._max_symbols = max_symbols
        self._max_streams = max_streams
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._latest = np.empty(0, np.uint32)
        """What the latest step changed."""
        self._sessions = np.zeros(min(64, max_symbols), SESSION)
        self._changed_at = np.zeros(len(self._sessions), np.int64)
        # Loads the kernel, so that the first batch is no slower than the next.
        no_symbol, none = _read_only(self._latest), _read_only(np.empty(0, np.int64))
        self._fold_sessions(no_symbol, none, none, none, none)

    def intern(self, symbol: str) -> int | None:
        """Return the index of `symbol`, a new one if need be, or None when there is no room."""
        known = self.symbols.find(symbol)
        if known is not None or len(self.symbols) == self._max_symbols:
            return known
        index = self.symbols.intern(symbol)
        if index == len(self._sessions):
            room = min(2 * index, self._max_symbols) - index
            self._sessions = np.concatenate([self._sessions, np.zeros(room, SESSION)])
            self._changed_at = np.concatenate([self._changed_at, np.zeros(room, np.int64)])
        return index

    def position(self, stream_id: str) -> int | None:
        """Return the sequence that the market wants next of a stream, None when it knows none."""
        return self._positions.get(stream_id)

    def apply(self, stream_id: str, first_sequence: int, ticks: TickColumns) -> Change:
        """Take what is new in a batch of a stream, and move the stream's position past it.

        Parameters
        ----------
        stream_id : str
            A stream that is not known yet may begin anywhere.
        first_sequence : int
            The sequence of the batch's first frame.
        ticks : TickColumns
            Its symbols are indices that `intern` returned.

        Raises
        ------
        SequenceGapError
            When frames before the batch are missing; nothing has changed.
        """
        position = self._positions.get(stream_id, first_sequence)
        if first_sequence > position:
            raise SequenceGapError(
                f"stream {stream_id!r} goes on at {position}, not at {first_sequence}"
            )
        known = min(position - first_sequence, ticks.frames)
        new = ticks.from_frame(known) if known else ticks
        changed = self._fold(new)
        self.counts.duplicates += len(ticks.symbol) - len(new.symbol)
        next_sequence = max(position, first_sequence + ticks.frames)
        self._remember(stream_id, next_sequence)
        return Change(stream_id, next_sequence, new, changed)

    def add(self, ticks: TickColumns) -> Change:
        """Take a batch of no stream: all of it is new, and a resend would count twice."""
        return Change(None, 0, ticks, self._fold(ticks))

    def session(self, index: int) -> np.void | None:
        """Return a copy of a symbol's session, a SESSION, or None when it has no trade yet."""
        return self._sessions[index].copy() if self._changed_at[index] else None

    def changed_since(self, commit: int) -> NDArray[np.uint32]:
        """Return the symbols that changed after the step of that number, each once."""
        if commit == self.commit - 1:
            return self._latest
        return np.flatnonzero(self._changed_at > commit).astype(np.uint32)

    def sessions(self, symbols: NDArray[np.uint32]) -> NDArray[np.void]:
        """Return copies of the symbols' sessions, a SESSION each."""
        return self._sessions[symbols]

    def _fold(self, ticks: TickColumns) -> NDArray[np.uint32]:
        """Enter ticks and refusals everywhere; return the symbols that changed, each once."""
        self.commit += 1
        symbol = _read_only(ticks.symbol)
        price, volume = _read_only(ticks.price), _read_only(ticks.volume)
        timestamp = _read_only(ticks.exchange_timestamp)
        ingest_timestamp = _read_only(ticks.ingest_timestamp)
        changed = self._fold_sessions(symbol, price, volume, timestamp, ingest_timestamp)
        self.bars.update(symbol, price, volume, timestamp)
        self.counts.ticks += len(symbol)
        if len(ticks.refused_reason):
            for reason, refused in enumerate(np.bincount(ticks.refused_reason).tolist()):
                self.counts.refused[reason] += refused
        self._latest = changed
        return changed

    def _fold_sessions(
        self,
        symbol: NDArray[np.uint32],
        price: NDArray[np.int64],
        volume: NDArray[np.int64],
        timestamp: NDArray[np.int64],
        ingest_timestamp: NDArray[np.int64],
    ) -> NDArray[np.uint32]:
        changed = np.empty(min(len(symbol), len(self.symbols)), np.uint32)
        changes = fold_sessions(
            symbol,
            price,
            volume,
            timestamp,
            ingest_timestamp,
            self._sessions.view(np.int64).reshape(-1, COLUMNS),
            self._changed_at,
            self.commit,
            changed,
        )
        return changed[:changes]

    def _remember(self, stream_id: str, next_sequence: int) -> None:
        """Keep the position, as that of the stream heard of last."""
        self._positions[stream_id] = next_sequence
        self._positions.move_to_end(stream_id)
        if len(self._positions) > self._max_streams:
            self._positions.popitem(last=False)


def _read_only(column: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return a view that a kernel compiled once takes, whether the column was received or made."""
    view = column.view()
    view.flags.writeable = False
    return view
