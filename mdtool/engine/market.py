"""The state of the market: sessions and bars by symbol, and the position of every stream in it.

Each trade is applied once. What a batch changes and the position that it came from are one step, so
that whatever a peer sends again, however split or joined, changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdtool.core.buckets import Buckets, EvenBuckets
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import REASONS, Frames, Probe, TradeRun, Trades
from mdtool.core.units import NS_PER_DAY
from mdtool.engine import session_kernel
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.saved_state import SAVED_BAR, SESSION, SESSION_LENGTH, SavedState
from mdtool.engine.session_kernel import (
    COLUMNS,
    LATE,
    PREVIOUS_START,
    ROLLED_AT,
    ROLLED_COLUMNS,
    ROLLED_START,
    ROLLED_SYMBOL,
    SPANS,
    START,
)

Scalar = TypeVar("Scalar", bound=np.generic)

_LATE: Final = "late"
"""The total of trades that were too old for bars."""
LATE_FOR_SESSIONS: Final = "late_for_sessions"
"""The total of trades of sessions that were not kept any more."""
_MAX_PROBES: Final = 64
"""Streams whose latest probe is remembered, for readers that have not received it yet."""
PAST: Final = "past_sessions"
"""The total of trades that are not in a current session."""


class SequenceGapError(PeerError):
    """A batch begins beyond the position of its stream: frames between were not sent."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the state: what a store writes before the step is acknowledged.

    Attributes
    ----------
    run : TradeRun
        What was new in the batch; its table is the market's.
    changed : uint32[k]
        The symbols that changed, each once.
    """

    run: TradeRun
    changed: NDArray[np.uint32]


@dataclass(slots=True)
class Counts:
    """Totals since the state began."""

    ticks: int = 0
    duplicates: int = 0
    """Ticks that were sent again and left out."""
    refused: list[int] = field(default_factory=lambda: [0] * REASONS)
    """Refused ticks by the number of the reason."""

    def named(self) -> dict[str, int]:
        """Return the totals by names under which they can be saved."""
        refused = {f"refused.{reason}": total for reason, total in enumerate(self.refused)}
        return {"ticks": self.ticks, "duplicates": self.duplicates, **refused}

    def restore(self, named: Mapping[str, int]) -> None:
        """Restore totals that were saved; the others start at 0."""
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
        How many symbols there may be.
    max_streams : int
        How many streams' positions are stored. The longest idle stream is dropped first; what it
        sends again would then count as new.
    sessions : Buckets, optional
        When sessions begin; by default at midnight, UTC. Each symbol's rolls with its first trade
        of a later one. The one before is kept.
    """

    def __init__(
        self,
        bars: LiveBars,
        max_symbols: int,
        max_streams: int,
        sessions: Buckets | None = None,
    ) -> None:
        self._buckets = sessions or EvenBuckets(NS_PER_DAY)
        self.symbols = SymbolTable()
        self.bars = bars
        self.counts = Counts()
        self.commit = 0
        """The number of the latest step, from 1."""
        self._max_symbols = max_symbols
        self._max_streams = max_streams
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._probes: OrderedDict[str, tuple[Probe, int]] = OrderedDict()
        """The latest probe of each of a few streams, and its step."""
        self._latest = np.empty(0, np.uint32)
        """What the latest step changed."""
        self._sessions = np.zeros(min(64, max_symbols), SESSION)
        self._changed_at = np.zeros(len(self._sessions), np.int64)
        self._previous = np.zeros(len(self._sessions), SESSION)
        self._previous_at = np.zeros(len(self._sessions), np.int64)
        self._spans = np.zeros((len(self._sessions), SPANS), np.int64)
        self._session_totals = np.zeros(2, np.int64)
        self._holds_past = False
        self._rolled: list[NDArray[np.int64]] = []
        """Rows of `ROLLED_COLUMNS` that are held until they are saved."""
        # Loads the kernel, so that the first batch is not slow.
        self._fold_sessions(Trades.empty())

    def restore(self, saved: SavedState) -> None:
        """Restore the state of an earlier market; called once, before anything else.

        All of its symbols are taken, whatever `max_symbols` is. From then on, bars are held until
        they are saved: see `LiveBars.saved_since`.
        """
        count = len(saved.symbols)
        self._max_symbols = max(self._max_symbols, count)
        for symbol in saved.symbols:
            self.intern(symbol)
        self.symbols.give_lots(saved.lots)
        self.commit += 1
        self._sessions[:count] = saved.sessions
        self._changed_at[:count] = self.commit
        self._latest = np.arange(count, dtype=np.uint32)
        self.bars.restore(saved.bars, saved.counts.get(_LATE, 0))
        self._restore_previous(saved.bars[saved.bars["interval_ns"] == SESSION_LENGTH])
        self._session_totals[LATE] = saved.counts.get(LATE_FOR_SESSIONS, 0)
        self._session_totals[session_kernel.PAST] = saved.counts.get(PAST, 0)
        self._spans[:count, :2] = self._spans_of(saved.sessions["timestamp"])
        for stream_id, next_sequence in saved.positions.items():
            self.remember(stream_id, next_sequence)
        self.counts.restore(saved.counts)

    def totals(self) -> dict[str, int]:
        """Return all that the market has counted, by name, as `restore` takes it."""
        late, past = self._session_totals.tolist()
        named = {_LATE: self.bars.late, LATE_FOR_SESSIONS: late, PAST: past}
        return {**self.counts.named(), **named}

    @property
    def late_for_sessions(self) -> int:
        """How many trades were of a session that was not kept any more."""
        return int(self._session_totals[LATE])

    def intern(self, symbol: str) -> int | None:
        """Return the index of `symbol`, a new one if necessary, or None when there is no room."""
        known = self.symbols.find(symbol)
        if known is not None or len(self.symbols) == self._max_symbols:
            return known
        index = self.symbols.intern(symbol)
        if index == len(self._sessions):
            room = min(2 * index, self._max_symbols) - index
            self._sessions = np.append(self._sessions, np.zeros(room, SESSION))
            self._previous = np.append(self._previous, np.zeros(room, SESSION))
            self._changed_at = np.append(self._changed_at, np.zeros(room, np.int64))
            self._previous_at = np.append(self._previous_at, np.zeros(room, np.int64))
            self._spans = np.append(self._spans, np.zeros((room, SPANS), np.int64), axis=0)
        return index

    @property
    def streams(self) -> int:
        """How many streams' positions are known."""
        return len(self._positions)

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence that the market expects of a stream, None where unknown."""
        return self._positions.get(stream_id)

    def skip(self, stream_id: str, next_sequence: int) -> None:
        """Move a stream's position forward: the frames before it belong to other markets."""
        if next_sequence > self._positions.get(stream_id, -1):
            self.remember(stream_id, next_sequence)

    def apply(self, stream_id: str, first_sequence: int, frames: Frames) -> Change:
        """Apply what is new in a batch of a stream, and move the stream's position past it.

        Parameters
        ----------
        stream_id : str
            An unknown stream may start anywhere.
        first_sequence : int
            The sequence of the first frame.
        frames : Frames
            Their symbols are indices that `intern` returned.

        Raises
        ------
        SequenceGapError
            When frames before the batch are missing; nothing has changed.
        """
        position = self._positions.get(stream_id, first_sequence)
        if first_sequence > position:
            raise SequenceGapError(
                f"stream {stream_id!r} continues at {position}, not at {first_sequence}"
            )
        new = frames.after(position - first_sequence)
        changed = self._fold(new)
        self.counts.duplicates += len(frames.trades) - len(new.trades)
        run = TradeRun(self.symbols, stream_id, position, new)
        self.remember(stream_id, run.next_sequence)
        if (probe := run.probe) is not None:
            self._note_probe(probe)
        return Change(run, changed)

    def probes_since(self, commit: int) -> Sequence[Probe]:
        """Return the latest probe of each stream that had one after the step of that number."""
        return [probe for probe, at in self._probes.values() if at > commit]

    def session(self, index: int) -> np.void | None:
        """Return a copy of a symbol's session, a SESSION, or None when it has no trade yet."""
        return self._sessions[index].copy() if self._changed_at[index] else None

    def past_session(self, index: int, day: int | None = None) -> np.void | None:
        """Return a copy of a symbol's session of a day, or of the one before the current one.

        Parameters
        ----------
        index : int
            The symbol.
        day : int, optional
            Days since the epoch; by default the session before.

        Returns
        -------
        SESSION or None
            None where it is not kept.
        """
        both = ((self._previous, PREVIOUS_START), (self._sessions, START))
        for rows, column in both[:1] if day is None else both:
            if rows["count"][index]:
                number = int(self._buckets.numbers(self._spans[index, column : column + 1])[0])
                if day in (None, number):
                    row: np.void = rows[index].copy()
                    return row
        return None

    def hold_past(self) -> None:
        """Hold past sessions until `past_since` has returned them, however often symbols roll."""
        self._holds_past = True

    def past_since(self, commit: int) -> NDArray[np.void]:
        """Return the past sessions that changed after a step, SAVED_BAR[m], to be saved.

        They are the previous ones, and with `hold_past` those that these have replaced since the
        last call.
        """
        symbols = np.flatnonzero(self._previous_at > commit)
        starts = self._spans[symbols, PREVIOUS_START]
        previous = _past_bars(symbols, starts, self._previous[symbols])
        if not self._rolled:
            return previous
        rolled = np.concatenate(self._rolled)
        self._rolled.clear()
        rolled = rolled[rolled[:, ROLLED_AT] > commit]
        rows = np.ascontiguousarray(rolled[:, ROLLED_START + 1 :]).view(SESSION)[:, 0]
        before = _past_bars(rolled[:, ROLLED_SYMBOL], rolled[:, ROLLED_START], rows)
        return np.concatenate([before, previous])

    def changed_since(self, commit: int) -> NDArray[np.uint32]:
        """Return the symbols that changed after the step of that number, each once."""
        if commit == self.commit - 1:
            return self._latest
        return np.flatnonzero(self._changed_at > commit).astype(np.uint32)

    def sessions(self, symbols: NDArray[np.uint32]) -> NDArray[np.void]:
        """Return copies of the symbols' sessions, a SESSION each."""
        return self._sessions[symbols]

    def latest_ingest_ns(self) -> int:
        """Return when the latest tick reached an ingest server, 0 before any."""
        return int(self._sessions["ingest_timestamp"][: len(self.symbols)].max(initial=0))

    def _fold(self, frames: Frames) -> NDArray[np.uint32]:
        """Enter trades and refusals everywhere; return the symbols that changed, each once."""
        self.commit += 1
        trades = frames.trades
        self._latest = self._fold_sessions(trades)
        self.bars.update(trades.symbol, trades.price, trades.size, trades.ts_event)
        self.counts.ticks += len(trades)
        if len(frames.refused_reason):
            for reason, refused in enumerate(frames.refusals().tolist()):
                self.counts.refused[reason] += refused
        return self._latest

    def _fold_sessions(self, trades: Trades) -> NDArray[np.uint32]:
        changed = np.empty(min(len(trades), len(self.symbols)), np.uint32)
        rolled = np.empty((len(trades) if self._holds_past else 0, ROLLED_COLUMNS), np.int64)
        changes, replaced = session_kernel.fold_sessions(
            self._buckets.length_ns or 0,
            self._bounds(trades.ts_event),
            _read_only(trades.symbol),
            _read_only(trades.price),
            _read_only(trades.size),
            _read_only(trades.ts_event),
            _read_only(trades.ts_recv),
            self._sessions.view(np.int64).reshape(-1, COLUMNS),
            self._previous.view(np.int64).reshape(-1, COLUMNS),
            self._spans,
            self._changed_at,
            self._previous_at,
            self._session_totals,
            self.commit,
            rolled,
            changed,
        )
        if replaced:
            self._rolled.append(rolled[:replaced].copy())
        return changed[:changes]

    def _note_probe(self, probe: Probe) -> None:
        self._probes[probe.stream_id] = probe, self.commit
        self._probes.move_to_end(probe.stream_id)
        if len(self._probes) > _MAX_PROBES:
            self._probes.popitem(last=False)

    def _bounds(self, ts_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._buckets.length_ns or not len(ts_ns):
            return np.zeros(1, np.int64)
        return self._buckets.bounds(int(ts_ns.min()), int(ts_ns.max()))

    def _spans_of(self, ts_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the starts and ends of the sessions that times are in, int64[n, 2]."""
        numbers = self._buckets.numbers(ts_ns)
        if not len(numbers):
            return np.empty((0, 2), np.int64)
        return np.stack([self._buckets.starts(numbers), self._buckets.starts(numbers + 1)], axis=1)

    def _restore_previous(self, saved: NDArray[np.void]) -> None:
        saved = saved[np.argsort(saved["start_ns"], kind="stable")]  # of several, the latest counts
        symbols = saved["symbol"]
        for name in ("open", "high", "low", "close", "volume", "count"):
            self._previous[name][symbols] = saved[name]
        self._previous["timestamp"][symbols] = saved["last_ns"]
        self._spans[symbols, 2:] = self._spans_of(saved["start_ns"])

    def remember(self, stream_id: str, next_sequence: int) -> None:
        """Store the position of a stream, which becomes the latest to be active."""
        self._positions[stream_id] = next_sequence
        self._positions.move_to_end(stream_id)
        if len(self._positions) > self._max_streams:
            self._positions.popitem(last=False)


def _read_only(column: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return a view that a kernel compiled once takes, whether the column was received or made."""
    view = column.view()
    view.flags.writeable = False
    return view


def _past_bars(
    symbols: NDArray[np.int64], starts: NDArray[np.int64], sessions: NDArray[np.void]
) -> NDArray[np.void]:
    """Return past sessions as they are saved, SAVED_BAR[m]."""
    bars = np.zeros(len(symbols), SAVED_BAR)
    for name in ("open", "high", "low", "close", "volume", "count"):
        bars[name] = sessions[name]
    bars["symbol"], bars["interval_ns"] = symbols, SESSION_LENGTH
    bars["start_ns"] = bars["first_ns"] = starts
    bars["last_ns"] = sessions["timestamp"]
    return bars
