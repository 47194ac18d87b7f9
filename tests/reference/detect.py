"""Detectors the plain way: one symbol, one event after the other, numbers in a dictionary."""

from __future__ import annotations

import math
from types import SimpleNamespace as State
from typing import Any

UNDEF = 2**63 - 1
MEMORY, BUCKET_MEMORY = 1 / 1024, 1 / 64


def learned(mean: float, value: float, seen: int, memory: float = MEMORY, most: float = 4) -> float:
    if seen >= 32 and mean > 0:
        value = min(value, most * mean)
    return mean + (value - mean) * max(1 / (seen + 1), memory)


class Symbol:
    """The detectors of one symbol; `closed` has (kind, begin, end, count, value, baseline)."""

    def __init__(self, rule: dict[str, Any]) -> None:
        self.rule = State(**rule)
        self.open: dict[str, list[Any]] = {}
        self.closed: list[tuple[Any, ...]] = []
        self.heard = self.last = self.steps = self.trades = self.quotes = 0
        self.price = self.traded = self.first = self.quoted = self.volume = 0
        self.bid = self.ask = UNDEF
        self.crossed = self.wide = self.bucket = 0
        self.gap = self.trade_gap = self.move = self.size = self.spread = self.longest = 0.0
        self.buckets: list[float] = []
        self.bucket_mean = self.bucket_deviation = self.peak = 0.0

    def find(self, kind: str, begin: int, end: int, value: int, baseline: int, score: float):
        found = self.open.get(kind)
        if found and begin > found[1] + self.rule.cool_down_ns:
            self.close(kind)
            found = None
        if found is None:
            found = self.open[kind] = [begin, end, 0, value, baseline, -1.0]
        found[1] = end
        found[2] += 1
        if score > found[5]:
            found[3:] = value, baseline, score

    def close(self, kind: str) -> None:
        self.closed.append((kind, *self.open.pop(kind)[:5]))

    def take(self, ts: int, trade: tuple[int, int] | None, quote: tuple[int, int] | None) -> None:
        ts = max(ts, self.last)
        self.silence(ts)
        if trade:
            self.trade(ts, *trade, quote)
        if quote:
            self.quote(ts, *quote)
        lasting = {"crossed": self.crossed, "spread": self.wide}
        for kind in [k for k, e in self.open.items() if ts > e[1] + self.rule.cool_down_ns]:
            if not lasting.get(kind):
                self.close(kind)

    def silence(self, ts: int) -> None:
        elapsed = ts - self.last
        if self.last and elapsed > 0:
            longest = max(float(self.rule.stale_ns), self.rule.stale_ratio * self.gap)
            longest = max(longest, self.rule.stale_longest * self.longest)
            is_known = self.last - self.heard >= self.rule.stale_after_ns
            if is_known and self.steps >= self.rule.warm_up and elapsed > longest:
                usual = max(self.gap, 1.0)
                self.find("stale", self.last, ts, elapsed, int(usual), elapsed / usual)
            silent = min(elapsed, 4 * self.longest) if self.steps >= 32 else elapsed
            self.longest = max(self.longest * (1 - min(elapsed / 600e9, 1)), silent)
            self.gap = learned(self.gap, elapsed, self.steps)
            self.steps += 1
        self.heard = self.heard or ts
        self.last = ts

    def trade(self, ts: int, price: int, size: int, quote: tuple[int, int] | None) -> None:
        rule = self.rule
        if self.trades:
            elapsed = max(ts - self.traded, 0)
            pace = math.sqrt(max(1.0, elapsed / max(self.trade_gap, 1.0)))
            move = abs(price - self.price) / max(abs(self.price), 1)
            z = move / (max(self.move, 1e-6) * pace)
            if self.trades > rule.warm_up and move >= rule.jump_min and z >= rule.jump_z:
                self.find("jump", ts, ts, price, self.price, z)
            self.trade_gap = learned(self.trade_gap, elapsed, self.trades - 1)
            self.move = learned(max(self.move, 1e-6), move / pace, self.trades - 1)
        else:
            self.first = price
        half = rule.band * abs(self.first)
        if half and abs(price - self.first) > half:
            bound = self.first + math.copysign(half, price - self.first)
            self.find("band", ts, ts, price, int(bound), abs(price - self.first) / half)
        self.off_quote(ts, price, quote)
        self.burst(ts, size)
        self.size = learned(self.size, size, self.trades)
        self.price, self.traded = price, ts
        self.trades += 1

    def off_quote(self, ts: int, price: int, quote: tuple[int, int] | None) -> None:
        is_old = ts - self.quoted > self.rule.quote_age_ns
        if self.quotes < self.rule.warm_up or is_old or UNDEF in (self.bid, self.ask):
            return
        if self.bid >= self.ask or (quote and UNDEF in quote):
            return
        bid = min(self.bid, quote[0]) if quote else self.bid
        ask = max(self.ask, quote[1]) if quote else self.ask
        passed = ask if price > ask else bid
        score = max(price - ask, bid - price) / max(abs(passed), 1)
        if score > self.rule.off_quote:
            self.find("off-quote", ts, ts, price, passed, score)

    def burst(self, ts: int, size: int) -> None:
        rule, bucket = self.rule, ts // self.rule.burst_window_ns
        if self.trades and bucket > self.bucket:
            for volume in [self.volume, *[0] * min(bucket - self.bucket - 1, 512)]:
                deviation = abs(volume - self.bucket_mean)
                peak = learned(self.peak, volume, len(self.buckets), 1.0, most=1.25)
                fade = min(rule.burst_window_ns / 600e9, 1)
                self.peak = max(self.peak * (1 - fade), peak)
                taken = float(volume)
                if len(self.buckets) >= rule.warm_up:
                    taken = min(taken, self.bucket_mean + 4 * self.bucket_deviation)
                share = max(1 / (len(self.buckets) + 1), BUCKET_MEMORY)
                self.bucket_mean += (taken - self.bucket_mean) * share
                seen = len(self.buckets)
                self.bucket_deviation = learned(
                    self.bucket_deviation, deviation, seen, BUCKET_MEMORY
                )
                self.buckets.append(taken)
            self.volume = 0
        self.bucket = max(self.bucket, bucket)
        self.volume += size
        least = max(rule.burst_trades * self.size, rule.burst_peak * self.peak)
        if len(self.buckets) >= rule.warm_up and self.volume > least:
            usual = max(self.bucket_deviation, self.bucket_mean / 4, 1.0)
            score = (self.volume - self.bucket_mean) / usual
            if score >= rule.burst_z:
                self.find("burst", ts, ts, self.volume, int(self.bucket_mean), score)

    def quote(self, ts: int, bid: int, ask: int) -> None:
        rule, is_whole = self.rule, UNDEF not in (bid, ask)
        if self.crossed and ts - self.crossed >= rule.crossed_ns:
            lasted = (ts - self.crossed) / max(rule.crossed_ns, 1)
            self.find("crossed", self.crossed, ts, self.bid, self.ask, lasted)
        if self.wide and ts - self.wide >= rule.spread_ns:
            spread, usual = self.ask - self.bid, max(self.spread, 1.0)
            self.find("spread", self.wide, ts, spread, int(usual), spread / usual)
        spread = ask - bid if is_whole and bid < ask else 0
        self.crossed = (self.crossed or ts) if is_whole and bid >= ask else 0
        is_wide = self.quotes >= rule.warm_up and spread > rule.spread_ratio * self.spread
        self.wide = (self.wide or ts) if is_wide else 0
        if spread:
            self.spread = learned(self.spread, spread, self.quotes, most=1.25 if is_wide else 4)
            self.quotes += 1
        self.bid, self.ask, self.quoted = bid, ask, ts

    def finish(self) -> None:
        for kind in list(self.open):
            self.close(kind)
