"""Rolling VWAPs the plain way: every window is a list, summed as fractions after each trade."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

MAX_VOLUME = 2**63 - 1


class Trade(NamedTuple):
    instrument: int
    price: int
    volume: int
    ts: int


class Vwap(NamedTuple):
    price: int | None
    volume: int
    trades: int


LATE = Vwap(None, 0, 0)


def vwap_of(trades: list[Trade]) -> Vwap:
    volume = sum(trade.volume for trade in trades)
    if not volume:
        return Vwap(None, 0, len(trades))
    notional = sum(trade.price * trade.volume for trade in trades)
    return Vwap(round(Fraction(notional, volume)), volume, len(trades))


def rolling(
    trades: Iterable[Trade], most: int | None = None, span: int | None = None
) -> tuple[list[Vwap], int, int]:
    """Return each trade's VWAP, and how many trades came late and left early."""
    windows: dict[int, list[Trade]] = defaultdict(list)
    latest: dict[int, int] = defaultdict(int)
    found, late, early = [], 0, 0
    for trade in trades:
        window, key = windows[trade.instrument], trade.instrument
        if span is not None:
            if trade.ts <= latest[key] - span:
                found.append(LATE)
                late += 1
                continue
            latest[key] = max(latest[key], trade.ts)
            window[:] = [held for held in window if held.ts > latest[key] - span]
        while most is not None and len(window) >= most:
            window.pop(0)
            early += span is not None
        while sum(held.volume for held in window) + trade.volume > MAX_VOLUME:
            window.pop(0)
            early += 1
        window.append(trade._replace(ts=latest[key]))
        found.append(vwap_of(window))
    return found, late, early
