"""What a store should hold, the plain way: dicts that every step is folded into by hand."""

from __future__ import annotations

import numpy as np

from mdtool.adapters.stores.errors import StoreGapError
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.engine.saved_state import SAVED_BAR, SESSION, SavedState


class PlainStore:
    """Trades by symbol, time, stream and sequence, and all that is kept beside them."""

    def __init__(self) -> None:
        self.trades: dict[tuple[str, int, str, int], tuple[int, int, int]] = {}
        self.positions: dict[str, int] = {}
        self.streams: set[str] = set()
        self.sessions: dict[str, tuple[int, ...]] = {}
        self.open_bars: dict[tuple[str, int], tuple[int, ...]] = {}
        self.bars: dict[tuple[str, int, int], tuple[int, ...]] = {}
        self.counts: dict[str, int] = {}

    def write(self, step: Step) -> None:
        """Take a step, all of it or nothing."""
        positions = dict(self.positions)
        news = [trade for run in step.runs for trade in self._new(run, step, positions)]
        self.positions = positions
        self.streams.update(run.stream_id for run in step.runs)
        for key, values in news:
            self.trades.setdefault(key, values)
        for index, session in zip(step.changed.tolist(), step.sessions.tolist(), strict=True):
            symbol = step.symbols[index]
            stored = self.sessions.get(symbol)
            # The sixth and seventh values are its trades, and the time of the latest.
            if stored is None or session[5] >= stored[5] or session[6] > stored[6]:
                self.sessions[symbol] = session
        for index, interval, is_open, start, *values in step.bars.tolist():
            symbol = step.symbols[index]
            if is_open:
                self._put_open(symbol, interval, (start, *values))
            else:
                self._put_closed(symbol, interval, (start, *values))
        for name, count in step.counts.items():
            self.counts[name] = max(count, self.counts.get(name, count))

    def symbols(self) -> list[tuple[str, int, int]]:
        """Return symbol, number of trades and the latest exchange time."""
        found: dict[str, list[int]] = {}
        for symbol, time_ns, _, _ in self.trades:
            found.setdefault(symbol, []).append(time_ns)
        return [(symbol, len(times), max(times)) for symbol, times in sorted(found.items())]

    def newest(self, symbol: str, numbers: dict[str, int]) -> list[tuple[int, ...]]:
        """Return time, number of the stream, sequence, price, volume and ingest time of trades."""
        found = [
            (time_ns, numbers[stream_id], sequence, *values)
            for (of, time_ns, stream_id, sequence), values in self.trades.items()
            if of == symbol
        ]
        return sorted(found, reverse=True)

    def closed(self, symbol: str, interval: int, before: int) -> list[tuple[int, ...]]:
        """Return closed bars that start before a time, newest first."""
        found = [
            (0, interval, 0, *bar)
            for (of, its_interval, start), bar in self.bars.items()
            if (of, its_interval) == (symbol, interval) and start < before
        ]
        return sorted(found, reverse=True)

    def load(self, max_streams: int, lateness_ns: int, symbols: list[str]) -> SavedState:
        """Return the state, with its symbols in a given order."""
        assert sorted(symbols) == sorted(self.sessions)
        place = {symbol: index for index, symbol in enumerate(symbols)}
        began: dict[str, int] = {}
        for (symbol, _), bar in self.open_bars.items():
            began[symbol] = max(began.get(symbol, bar[0]), bar[0])
        bars = [
            (place[symbol], interval, 1, *bar)
            for (symbol, interval), bar in self.open_bars.items()
            if symbol in place
        ]
        bars += [
            (place[symbol], interval, 0, *bar)
            for (symbol, interval, start), bar in self.bars.items()
            if symbol in place
            and (symbol, interval) in self.open_bars
            and start + interval > began[symbol] - lateness_ns
        ]
        bars.sort(key=lambda bar: (bar[0], bar[1], bar[3]))
        heard = list(self.positions.items())
        return SavedState(
            symbols,
            np.array([self.sessions[symbol] for symbol in symbols], SESSION),
            np.array(bars, SAVED_BAR),
            dict(heard[len(heard) - max_streams :] if max_streams < len(heard) else heard),
            self.counts,
        )

    def _new(self, run: StreamRun, step: Step, positions: dict[str, int]):
        position = run.first_sequence
        if not run.is_part:
            position = positions.pop(run.stream_id, run.first_sequence)
            if run.first_sequence > position:
                raise StoreGapError(run.stream_id)
            positions[run.stream_id] = max(position, run.next_sequence)
        for row, sequence in enumerate(run.sequence.tolist()):
            if run.is_part or sequence >= position:
                symbol = step.symbols[int(run.trades.symbol[row])]
                key = symbol, int(run.trades.ts_event[row]), run.stream_id, sequence
                columns = run.trades.price, run.trades.size, run.trades.ts_recv
                yield key, tuple(int(column[row]) for column in columns)

    def _put_open(self, symbol: str, interval: int, bar: tuple[int, ...]) -> None:
        stored = self.open_bars.get((symbol, interval))
        if stored is None or (stored[0], stored[6]) <= (bar[0], bar[6]):
            self.open_bars[symbol, interval] = bar

    def _put_closed(self, symbol: str, interval: int, bar: tuple[int, ...]) -> None:
        stored = self.bars.get((symbol, interval, bar[0]))
        if stored is None or stored[6] <= bar[6]:
            self.bars[symbol, interval, bar[0]] = bar
