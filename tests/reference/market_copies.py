"""What a store keeps of a market, in plain dicts: overwritten step by step, and read back."""

from __future__ import annotations

import numpy as np

from mdtool.engine.market import Market
from mdtool.engine.saved_state import SAVED_BAR, SESSION, SavedState


class MarketCopy:
    """The latest of everything that a market said has changed."""

    def __init__(self) -> None:
        self.sessions: dict[str, np.void] = {}
        self.open_bars: dict[tuple[str, int], np.void] = {}
        self.closed_bars: dict[tuple[str, int, int], np.void] = {}
        self.positions: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self._commit = self._step = 0

    def attach(self, market: Market) -> None:
        """Begin with a market that has just been made or restored."""
        self._commit, self._step = market.commit, market.bars.step

    def save(self, market: Market, streams: list[str]) -> None:
        """Take what has changed since the last time."""
        changed = market.changed_since(self._commit)
        for index, session in zip(changed.tolist(), market.sessions(changed), strict=True):
            self.sessions[market.symbols[index]] = session.copy()
        for bar in market.bars.saved_since(self._step, changed):
            symbol, interval = market.symbols[bar["symbol"]], int(bar["interval_ns"])
            if bar["is_open"]:
                self.open_bars[symbol, interval] = bar.copy()
            else:
                self.closed_bars[symbol, interval, int(bar["start_ns"])] = bar.copy()
        for stream_id in streams:
            position = market.position(stream_id)
            if position is not None:
                self.positions[stream_id] = position
        self.counts = market.totals()
        self.attach(market)

    def restore(self, market: Market, lateness_ns: int | None) -> None:
        """Restore all, or of the closed bars only those that may still be amended."""
        symbols = list(self.sessions)
        latest = dict.fromkeys(symbols, 0)
        for (symbol, _), bar in self.open_bars.items():
            latest[symbol] = max(latest[symbol], int(bar["start_ns"]))
        wanted = [(symbol, bar) for (symbol, _), bar in self.open_bars.items()]
        wanted += [
            (symbol, bar)
            for (symbol, interval, start), bar in self.closed_bars.items()
            if lateness_ns is None or start + interval > latest[symbol] - lateness_ns
        ]
        bars = np.array([bar for _, bar in wanted], SAVED_BAR)
        bars["symbol"] = [symbols.index(symbol) for symbol, _ in wanted]
        sessions = np.array([self.sessions[symbol] for symbol in symbols], SESSION)
        market.restore(SavedState(symbols, sessions, bars, self.positions, self.counts))
        self.attach(market)
