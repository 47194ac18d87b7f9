"""The state of the market: sessions and bars by symbol, and the position of every stream in it.

Each tick enters once. What a batch changes and the position that it came from are one step, so
that whatever a peer sends again, split or joined as it likes, changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
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
_LATE: Final = "late"
"""The total of ticks that were too old for bars."""


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
    def offset(self) -> NDArray[np.uint32]:
        """Places of the ticks among the batch's frames, rising, shape (n,)."""
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

    stream_id: str
    """The stream that it came from."""
    next_sequence: int
    """The position of that stream after the step."""
    ticks: TickColumns
    """What was new in the batch."""
    symbols: NDArray[np.uint32]
    """The symbols that changed, each once."""

    @property
    def first_sequence(self) -> int:
        """The position of the stream before the step, that of the first new frame."""
        return self.next_sequence - self.ticks.frames


@dataclass(slots=True)
class Counts:
    """Totals since the state began."""

    ticks: int = 0
    duplicates: int = 0
    """Ticks that were sent again and left out."""
    refused: list[int] = field(default_factory=lambda: [0] * REASONS)
    """By the number of the reason."""

    def named(self) -> dict[str, int]:
        """Return the totals by names under which they can be saved."""
        refused = {f"refused.{reason}": total for reason, total in enumerate(self.refused)}
        return {"ticks": self.ticks, "duplicates": self.duplicates, **refused}

    def take_up(self, named: Mapping[str, int]) -> None:
        """Go on from totals that were saved; those that were not begin at 0."""
        self.ticks = named.get("ticks", 0)
        self.duplicates = named.get("duplicates", 0)
        self.refused = [named.get(f"refused.{reason}", 0) for reason in range(REASONS)]


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

    def restore(
        self,
        symbols: Sequence[str],
        sessions: NDArray[np.void],
        bars: NDArray[np.void],
        positions: Mapping[str, int],
        counts: Mapping[str, int],
    ) -> None:
        """Take up what a market before this one was; called once, before anything else.

        From then on, the bars hold what was not saved: see `LiveBars.saved_since`.

        Parameters
        ----------
        symbols : sequence of str
            Those that have a session; all of them are taken, whatever `max_symbols` is.
        sessions : SESSION[k]
            Of each of them.
        bars : SAVED_BAR[m]
            As `LiveBars.restore` wants them; `symbol` is an index into `symbols`.
        positions : mapping of str to int
            The position of each stream, the one heard of longest ago first.
        counts : mapping of str to int
            As `totals` gave them.
        """
        self._max_symbols = max(self._max_symbols, len(symbols))
        for symbol in symbols:
            self.intern(symbol)
        known = len(self.symbols)
        self.commit += 1
        self._sessions[:known] = sessions
        self._changed_at[:known] = self.commit
        self._latest = np.arange(known, dtype=np.uint32)
        self.bars.restore(bars, counts.get(_LATE, 0))
        for stream_id, next_sequence in positions.items():
            self.remember(stream_id, next_sequence)
        self.counts.take_up(counts)

    def totals(self) -> dict[str, int]:
        """Return all that the market has counted, by name, as `restore` takes it."""
        return {**self.counts.named(), _LATE: self.bars.late}

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

    def skip(self, stream_id: str, next_sequence: int) -> None:
        """Take note that a stream goes on there: what it has before is for other markets."""
        if next_sequence > self._positions.get(stream_id, -1):
            self.remember(stream_id, next_sequence)

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
        self.remember(stream_id, next_sequence)
        return Change(stream_id, next_sequence, new, changed)

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

    def remember(self, stream_id: str, next_sequence: int) -> None:
        """Keep the position of a stream, as that of the one heard of last."""
        self._positions[stream_id] = next_sequence
        self._positions.move_to_end(stream_id)
        if len(self._positions) > self._max_streams:
            self._positions.popitem(last=False)


def _read_only(column: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return a view that a kernel compiled once takes, whether the column was received or made."""
    view = column.view()
    view.flags.writeable = False
    return view
