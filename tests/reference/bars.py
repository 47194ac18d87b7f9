"""Bars the plain way: trades are kept, sorted and summed when a bar is asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_VOLUME = 2**63 - 1


class Trade(NamedTuple):
    instrument: int
    price: int
    size: int
    ts: int


class Bar(NamedTuple):
    instrument: int
    start_ns: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    count: int


def bar_of(trades: Sequence[Trade], start: int) -> Bar:
    """Return the bar of trades given in their order of arrival."""
    by_time = sorted(trades, key=lambda trade: trade.ts)
    prices = [trade.price for trade in by_time]
    volume = min(sum(trade.size for trade in trades), MAX_VOLUME)
    return Bar(
        trades[0].instrument,
        start,
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        volume,
        len(trades),
    )


def live_bars(
    trades: Iterable[Trade], intervals: Sequence[int], lateness: int = 0
) -> tuple[dict[tuple[int, int], list[Bar]], int]:
    """Return every bar of each (instrument, interval), newest first, and how many were late."""
    buckets: dict[tuple[int, int], dict[int, list[Trade]]] = defaultdict(lambda: defaultdict(list))
    latest: dict[int, int] = {}
    late = 0
    for trade in trades:
        end = (trade.ts // min(intervals) + 1) * min(intervals)
        if trade.instrument in latest and end <= latest[trade.instrument] - lateness:
            late += 1
            continue
        latest[trade.instrument] = max(latest.get(trade.instrument, 0), trade.ts)
        for interval in intervals:
            start = trade.ts // interval * interval
            buckets[trade.instrument, interval][start].append(trade)
    bars = {
        series: [bar_of(starts[start], start) for start in sorted(starts, reverse=True)]
        for series, starts in buckets.items()
    }
    return bars, late


def time_bars(trades: Iterable[Trade], interval: int, lateness: int = 0) -> tuple[list[Bar], int]:
    """Return all bars by start and then instrument, and how many trades came too late."""
    buckets: dict[tuple[int, int], list[Trade]] = defaultdict(list)
    latest = 0
    late = 0
    for trade in trades:
        start = trade.ts // interval * interval
        if start + interval <= latest - lateness:
            late += 1
            continue
        latest = max(latest, trade.ts)
        buckets[start, trade.instrument].append(trade)
    return [bar_of(buckets[key], key[0]) for key in sorted(buckets)], late


def filled(bars: Iterable[Bar], interval: int, mode: str) -> list[Bar]:
    """Return the bars with one for each empty bucket between two of the same instrument."""
    out: list[Bar] = []
    last: dict[int, Bar] = {}
    for bar in bars:
        if bar.instrument in last and mode != "none":
            before = last[bar.instrument]
            price = before.close if mode == "prev" else 0
            out.extend(
                Bar(bar.instrument, start, price, price, price, price, 0, 0)
                for start in range(before.start_ns + interval, bar.start_ns, interval)
            )
        out.append(bar)
        last[bar.instrument] = bar
    return out


def bars_by(trades: Iterable[Trade], measure: str, threshold: int) -> list[Bar]:
    """Return bars that each reach `threshold` in volume, ticks or notional (1e-9), as they close.

    What is left open at the end follows by instrument.
    """
    held: dict[int, list[Trade]] = defaultdict(list)
    out: list[Bar] = []

    def take(instrument: int) -> Bar:
        group = held.pop(instrument)
        # Every trade at one moment: their order of arrival sets open and close.
        bar = bar_of([trade._replace(ts=0) for trade in group], 0)
        return bar._replace(start_ns=group[0].ts)

    weigh = {
        "volume": lambda trade: trade.size,
        "ticks": lambda trade: 1,
        "notional": lambda trade: abs(trade.price) * trade.size,
    }[measure]
    for trade in trades:
        held[trade.instrument].append(trade)
        if sum(map(weigh, held[trade.instrument])) >= threshold:
            out.append(take(trade.instrument))
    return out + [take(instrument) for instrument in sorted(held)]
