"""The kernel of detectors: each event of an instrument against what that instrument usually does.

What is usual is a running mean, over about `MEMORY` observations. Outliers are clipped before they
enter it, so that a fault does not become usual while it lasts. Every detector costs O(1) an event.

An alert is an episode. It opens at the first finding, is extended by each that follows within the
cool-down, and closes once none has. `alerts` gets a row when an episode opens and one when it
closes.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import F_MAYBE_BAD_BOOK, F_SNAPSHOT
from mdtool.core.jit import inlined, kernel
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE

JUMP, BURST, OFF_QUOTE, CROSSED, SPREAD, STALE, GAP, BAND = range(8)
KINDS: Final = 8

EVENT: Final = np.dtype(
    [
        ("instrument", "i8"),  # its index
        ("ts_ns", "i8"),
        ("channel", "i8"),  # the publisher, whose sequence this is
        ("sequence", "i8"),  # modulo 2**32, -1 where there is none
        ("price", "i8"),  # of a trade at 1e-9, UNDEF_PRICE of no trade
        ("size", "i8"),
        ("has_quote", "i8"),  # 1 where bid and ask are the best prices, or UNDEF_PRICE
        ("bid", "i8"),
        ("ask", "i8"),
    ]
)
RULE: Final = np.dtype(
    [
        ("warm_up", "i8"),  # trades, quotes or records before anything is judged
        ("cool_down_ns", "i8"),
        ("jump_z", "f8"),
        ("jump_min", "f8"),  # as a part of the price
        ("burst_z", "f8"),
        ("burst_trades", "f8"),  # at least so many trades of usual size
        ("burst_peak", "f8"),  # at least so many times the highest volume of late
        ("burst_window_ns", "i8"),
        ("off_quote", "f8"),  # as a part of the price
        ("quote_age_ns", "i8"),
        ("crossed_ns", "i8"),
        ("spread_ratio", "f8"),
        ("spread_ns", "i8"),
        ("stale_ratio", "f8"),
        ("stale_longest", "f8"),
        ("stale_ns", "i8"),
        ("stale_after_ns", "i8"),  # it was heard for so long before
        ("band", "f8"),  # as a part of the first price
        ("low", "i8"),  # a band given as two prices, where low < high
        ("high", "i8"),
    ]
)
ROW: Final = np.dtype(
    [
        ("rule", "i8"),
        ("first_ns", "i8"),  # of its first event
        ("last_ns", "i8"),  # of its latest event
        ("expires_ns", "i8"),  # no open episode ends before
        ("steps", "i8"),  # how often its time rose
        ("trades", "i8"),
        ("quotes", "i8"),
        ("buckets", "i8"),
        ("price", "i8"),  # of the last trade
        ("trade_ns", "i8"),
        ("first_price", "i8"),
        ("bid", "i8"),
        ("ask", "i8"),
        ("quote_ns", "i8"),
        ("crossed_ns", "i8"),  # since when the quote is, 0 where it is not
        ("wide_ns", "i8"),
        ("bucket", "i8"),  # the number of the current bucket of volume
        ("volume", "i8"),  # of that
        ("longest", "f8"),  # its longest silence of late, ns
        ("gap", "f8"),  # means: ns between times
        ("trade_gap", "f8"),  # ns between trades
        ("move", "f8"),  # the absolute return of a trade
        ("size", "f8"),  # of a trade
        ("bucket_mean", "f8"),  # volume of a bucket
        ("bucket_deviation", "f8"),  # its mean absolute deviation
        ("peak", "f8"),  # its highest volume of late
        ("spread", "f8"),
    ]
)
CHANNEL: Final = np.dtype(
    [
        ("last", "i8"),
        ("last_ns", "i8"),
        ("steps", "i8"),
        ("holes", "f8"),  # the share of steps by more than 1
    ]
)
EPISODE: Final = np.dtype(
    [
        ("is_open", "i8"),
        ("begin_ns", "i8"),
        ("end_ns", "i8"),
        ("count", "i8"),
        ("value", "i8"),  # of the worst finding, as is what follows
        ("baseline", "i8"),
        ("score", "f8"),
        ("limit", "f8"),
    ]
)
ALERT: Final = np.dtype([("instrument", "i8"), ("kind", "i8"), *EPISODE.descr])

ROOM: Final = 4 * KINDS
"""The most alerts that one event can make."""
MEMORY: Final = 1 / 1024
_BUCKET_MEMORY: Final = 1 / 64
_MOST_EMPTY: Final = 512
_CLIP: Final = 4.0
_CLIP_FOUND: Final = 1.25
_LEAST_MOVE: Final = 1e-6
"""A return that is noise on any market."""
_FADES_NS: Final = 600e9
"""A silence or a volume counts as one of late for about ten minutes."""
_SEQUENCE_STEPS: Final = 1_000
_MOST_HOLES: Final = 0.01
_NEVER: Final = 2**63 - 1


class Detectors(NamedTuple):
    """The state of all detectors.

    Attributes
    ----------
    rules : RULE[k]
    rows : ROW[m]
        By instrument.
    episodes : EPISODE[m, KINDS]
    channels : CHANNEL[65536]
        By publisher.
    alerts : ALERT[a]
        Filled from 0.
    written : int64[1]
        How many alerts there are.
    """

    rules: npt.NDArray[Any]
    rows: npt.NDArray[Any]
    episodes: npt.NDArray[Any]
    channels: npt.NDArray[Any]
    alerts: npt.NDArray[Any]
    written: npt.NDArray[np.int64]


@kernel
def merge(
    orders: npt.NDArray[Any],
    instrument: npt.NDArray[np.uint32],
    counted: npt.NDArray[np.bool_],
    quotes: npt.NDArray[Any],
    quoted: npt.NDArray[np.uint32],
    taken: int,
    events: npt.NDArray[Any],
) -> tuple[int, int]:
    """Return how many orders are taken, and how many events they and some quotes make.

    Orders are taken from `taken` on, as far as the last quote; without quotes, all of them. A quote
    comes behind the orders of its time. Those of an opening book, as old as its orders, are none.
    Trades are the orders that `counted` marks.
    """
    made = 0
    for at in range(max(len(quotes), 1)):
        has_quote = at < len(quotes)
        end_ns = np.int64(quotes[at].ts_recv) if has_quote else _NEVER
        while taken < len(orders) and np.int64(orders[taken].ts_recv) <= end_ns:
            order = orders[taken]
            if not order.flags & F_SNAPSHOT and np.int64(order.ts_recv) >= 0:
                event = events[made]
                _set_event(event, order, instrument[taken])
                event.sequence = order.sequence
                if counted[taken] and order.size not in (0, UNDEF_ORDER_SIZE):
                    event.price, event.size = order.price, order.size
                made += 1
            taken += 1
        if has_quote and not quotes[at].flags & F_SNAPSHOT and end_ns >= 0:
            event = events[made]
            _set_event(event, quotes[at], quoted[at])
            event.has_quote = 1
            if not quotes[at].flags & F_MAYBE_BAD_BOOK:
                event.bid, event.ask = quotes[at].bid_px_00, quotes[at].ask_px_00
            made += 1
    return taken, made


@inlined
def _set_event(event: Any, record: Any, instrument: int) -> None:
    """Set what every event has; the rest is of no trade and no quote."""
    event.instrument = instrument
    event.ts_ns = np.int64(record.ts_recv)
    event.channel = record.publisher_id
    event.sequence = -1
    event.price = event.bid = event.ask = UNDEF_PRICE
    event.size = event.has_quote = 0


@kernel
def detect(state: Detectors, events: npt.NDArray[Any], begin: int) -> int:
    """Take events from `begin` on; return how many were taken, fewer where alerts are full."""
    for at in range(begin, len(events)):
        if state.written[0] + ROOM > len(state.alerts):
            return at
        event = events[at]
        row = state.rows[event.instrument]
        rule = state.rules[row.rule]
        ts_ns = max(event.ts_ns, row.last_ns)
        if event.sequence >= 0:
            _count(state, event, ts_ns)
        _time(state, event.instrument, ts_ns)
        if event.price != UNDEF_PRICE:
            _trade(state, event, row, rule, ts_ns)
        if event.has_quote:
            _quote(state, event, row, rule, ts_ns)
        if ts_ns > row.expires_ns:
            _expire(state, event.instrument, ts_ns)
    return len(events)


@kernel
def advance(state: Detectors, now_ns: int, begin: int) -> int:
    """Let time pass without events; return how many instruments were looked at, as `detect`."""
    for at in range(begin, len(state.rows)):
        if state.written[0] + ROOM > len(state.alerts):
            return at
        row = state.rows[at]
        if row.last_ns == 0 or now_ns <= row.last_ns:
            continue
        rule = state.rules[row.rule]
        _find_stale(state, at, now_ns)
        if row.crossed_ns and now_ns - row.crossed_ns >= rule.crossed_ns:
            _find_crossed(state, at, now_ns)
        if row.wide_ns and now_ns - row.wide_ns >= rule.spread_ns:
            _find_wide(state, at, now_ns)
        if now_ns > row.expires_ns:
            _expire(state, at, now_ns)
    return len(state.rows)


@inlined
def _time(state: Detectors, instrument: int, ts_ns: int) -> None:
    row = state.rows[instrument]
    if row.last_ns:
        elapsed = ts_ns - row.last_ns
        if elapsed > 0:
            _find_stale(state, instrument, ts_ns)
            faded = row.longest * (1.0 - min(elapsed / _FADES_NS, 1.0))
            row.longest = max(faded, _learned(row.longest, float(elapsed), row.steps, 1.0))
            row.gap = _learned(row.gap, float(elapsed), row.steps, MEMORY)
            row.steps += 1
    else:
        row.first_ns = ts_ns
    row.last_ns = ts_ns


@inlined
def _find_stale(state: Detectors, instrument: int, ts_ns: int) -> None:
    row = state.rows[instrument]
    rule = state.rules[row.rule]
    elapsed = ts_ns - row.last_ns
    limit_ns = max(float(rule.stale_ns), rule.stale_ratio * row.gap)
    limit_ns = max(limit_ns, rule.stale_longest * row.longest)
    is_judged = row.steps >= rule.warm_up and row.last_ns - row.first_ns >= rule.stale_after_ns
    if is_judged and elapsed > limit_ns:
        usual = max(row.gap, 1.0)
        score, limit = elapsed / usual, limit_ns / usual
        _find(state, instrument, STALE, row.last_ns, ts_ns, elapsed, int(usual), score, limit)


@inlined
def _count(state: Detectors, event: Any, ts_ns: int) -> None:
    channel = state.channels[event.channel]
    if channel.last_ns:
        step = (event.sequence - channel.last) & 0xFFFFFFFF
        if step == 0 or step >= 1 << 31:
            return
        is_hole = 0.0
        if step > 1:
            is_hole = 1.0
            if channel.steps >= _SEQUENCE_STEPS and channel.holes < _MOST_HOLES:
                missing = float(step - 1)
                begin_ns = min(channel.last_ns, ts_ns)
                last, at = channel.last, event.instrument
                _find(state, at, GAP, begin_ns, ts_ns, event.sequence, last, missing, 1.0)
        channel.steps += 1
        channel.holes += (is_hole - channel.holes) * max(1.0 / channel.steps, MEMORY)
    channel.last = event.sequence
    channel.last_ns = ts_ns


@inlined
def _trade(state: Detectors, event: Any, row: Any, rule: Any, ts_ns: int) -> None:
    price, at = event.price, event.instrument
    if row.trades == 0:
        row.first_price = price
    else:
        elapsed = max(ts_ns - row.trade_ns, 0)
        pace = math.sqrt(max(elapsed / max(row.trade_gap, 1.0), 1.0))
        move = abs(price - row.price) / max(abs(float(row.price)), 1.0)
        z = move / (max(row.move, _LEAST_MOVE) * pace)
        if row.trades > rule.warm_up and move >= rule.jump_min and z >= rule.jump_z:
            _find(state, at, JUMP, ts_ns, ts_ns, price, row.price, z, rule.jump_z)
        seen = row.trades - 1
        row.trade_gap = _learned(row.trade_gap, float(elapsed), seen, MEMORY)
        row.move = _learned(max(row.move, _LEAST_MOVE), move / pace, seen, MEMORY)
    _find_outside_band(state, event, row, rule, ts_ns)
    _find_off_quote(state, event, row, rule, ts_ns)
    _add_volume(state, event, row, rule, ts_ns)
    row.size = _learned(row.size, float(event.size), row.trades, MEMORY)
    row.price = price
    row.trade_ns = ts_ns
    row.trades += 1


@inlined
def _find_outside_band(state: Detectors, event: Any, row: Any, rule: Any, ts_ns: int) -> None:
    middle, half = float(row.first_price), rule.band * abs(float(row.first_price))
    if rule.low < rule.high:
        middle, half = (rule.low + rule.high) / 2.0, (rule.high - rule.low) / 2.0
    distance = event.price - middle
    if half > 0.0 and abs(distance) > half:
        bound = int(middle + half) if distance > 0.0 else int(middle - half)
        score = abs(distance) / half
        _find(state, event.instrument, BAND, ts_ns, ts_ns, event.price, bound, score, 1.0)


@inlined
def _find_off_quote(state: Detectors, event: Any, row: Any, rule: Any, ts_ns: int) -> None:
    """Look at the quote before the trade and, where the record has one, the quote after it."""
    if row.quotes < rule.warm_up or ts_ns - row.quote_ns > rule.quote_age_ns:
        return
    bid, ask = row.bid, row.ask
    if UNDEF_PRICE in (bid, ask) or bid >= ask:
        return
    if event.has_quote:
        if UNDEF_PRICE in (event.bid, event.ask):
            return
        bid, ask = min(bid, event.bid), max(ask, event.ask)
    passed = ask if event.price > ask else bid
    outside = max(event.price - ask, bid - event.price)
    score = outside / max(abs(float(passed)), 1.0)
    if score > rule.off_quote:
        limit = rule.off_quote
        _find(state, event.instrument, OFF_QUOTE, ts_ns, ts_ns, event.price, passed, score, limit)


@inlined
def _add_volume(state: Detectors, event: Any, row: Any, rule: Any, ts_ns: int) -> None:
    bucket = ts_ns // rule.burst_window_ns
    if row.trades == 0:
        row.bucket = bucket
    elif bucket > row.bucket:
        empty = min(bucket - row.bucket - 1, _MOST_EMPTY)
        volume = float(row.volume)
        for _ in range(1 + empty):
            faded = row.peak * (1.0 - min(rule.burst_window_ns / _FADES_NS, 1.0))
            row.peak = max(faded, _learned(row.peak, volume, row.buckets, 1.0, _CLIP_FOUND))
            deviation = abs(volume - row.bucket_mean)
            most = row.bucket_mean + _CLIP * row.bucket_deviation
            if row.buckets >= rule.warm_up and volume > most:
                volume = most
            share = max(1.0 / (row.buckets + 1), _BUCKET_MEMORY)
            row.bucket_mean += (volume - row.bucket_mean) * share
            row.bucket_deviation = _learned(
                row.bucket_deviation, deviation, row.buckets, _BUCKET_MEMORY
            )
            row.buckets += 1
            volume = 0.0
        row.bucket = bucket
        row.volume = 0
    row.volume += event.size
    least = max(rule.burst_trades * row.size, rule.burst_peak * row.peak)
    if row.buckets >= rule.warm_up and row.volume > least:
        usual = max(row.bucket_deviation, row.bucket_mean / 4.0, 1.0)
        score = (row.volume - row.bucket_mean) / usual
        if score >= rule.burst_z:
            mean, limit, volume = int(row.bucket_mean), rule.burst_z, row.volume
            _find(state, event.instrument, BURST, ts_ns, ts_ns, volume, mean, score, limit)


@inlined
def _quote(state: Detectors, event: Any, row: Any, rule: Any, ts_ns: int) -> None:
    at = event.instrument
    is_whole = UNDEF_PRICE not in (event.bid, event.ask)
    is_crossed = is_whole and event.bid >= event.ask
    spread = 0.0
    if is_whole and not is_crossed:
        spread = float(event.ask - event.bid)
    is_wide = row.quotes >= rule.warm_up and spread > rule.spread_ratio * row.spread
    # What lasted until now is found with the quote that it was, before that is replaced.
    if row.crossed_ns and ts_ns - row.crossed_ns >= rule.crossed_ns:
        _find_crossed(state, at, ts_ns)
    if row.wide_ns and ts_ns - row.wide_ns >= rule.spread_ns:
        _find_wide(state, at, ts_ns)
    if not is_crossed:
        row.crossed_ns = 0
    elif row.crossed_ns == 0:
        row.crossed_ns = ts_ns
    if not is_wide:
        row.wide_ns = 0
    elif row.wide_ns == 0:
        row.wide_ns = ts_ns
    if spread > 0.0:
        # Thousands of quotes a second would make what is wide usual before it has lasted.
        most = _CLIP_FOUND if is_wide else _CLIP
        row.spread = _learned(row.spread, spread, row.quotes, MEMORY, most)
        row.quotes += 1
    row.bid, row.ask, row.quote_ns = event.bid, event.ask, ts_ns


@inlined
def _find_crossed(state: Detectors, at: int, ts_ns: int) -> None:
    row = state.rows[at]
    score = (ts_ns - row.crossed_ns) / max(state.rules[row.rule].crossed_ns, 1)
    _find(state, at, CROSSED, row.crossed_ns, ts_ns, row.bid, row.ask, score, 1.0)


@inlined
def _find_wide(state: Detectors, at: int, ts_ns: int) -> None:
    row = state.rows[at]
    spread, usual = row.ask - row.bid, max(row.spread, 1.0)
    limit = state.rules[row.rule].spread_ratio
    _find(state, at, SPREAD, row.wide_ns, ts_ns, spread, int(usual), spread / usual, limit)


@inlined
def _learned(mean: float, value: float, seen: int, memory: float, most: float = _CLIP) -> float:
    """Return a mean after one more value, clipped once there are enough to know what is usual."""
    share = max(1.0 / (seen + 1), memory)
    if seen >= 32 and 0.0 < most * mean < value:
        value = most * mean
    return float(mean + (value - mean) * share)


@inlined
def _find(
    state: Detectors,
    at: int,
    kind: int,
    begin_ns: int,
    ts_ns: int,
    value: int,
    baseline: int,
    score: float,
    limit: float,
) -> None:
    """Open an episode, or extend the one that is open."""
    episode = state.episodes[at, kind]
    row = state.rows[at]
    cool_down_ns = state.rules[row.rule].cool_down_ns
    if episode.is_open and begin_ns > episode.end_ns + cool_down_ns:
        _close(state, at, kind)
    is_new = not episode.is_open
    if is_new:
        episode.is_open = 1
        episode.begin_ns = begin_ns
        episode.count = 0
        episode.score = -1.0
    episode.end_ns = ts_ns
    episode.count += 1
    if score > episode.score:
        episode.score, episode.limit = score, limit
        episode.value, episode.baseline = value, baseline
    row.expires_ns = min(row.expires_ns, ts_ns + cool_down_ns)
    if is_new:
        _write(state, at, kind)


@inlined
def _expire(state: Detectors, at: int, ts_ns: int) -> None:
    """Close the episodes whose cool-down is over, unless what was found lasts."""
    row = state.rows[at]
    cool_down_ns = state.rules[row.rule].cool_down_ns
    row.expires_ns = _NEVER
    for kind in range(KINDS):
        episode = state.episodes[at, kind]
        if episode.is_open:
            lasts = (kind == CROSSED and row.crossed_ns) or (kind == SPREAD and row.wide_ns)
            if ts_ns > episode.end_ns + cool_down_ns and not lasts:
                _close(state, at, kind)
            else:
                row.expires_ns = min(row.expires_ns, episode.end_ns + cool_down_ns)


@inlined
def _close(state: Detectors, at: int, kind: int) -> None:
    state.episodes[at, kind].is_open = 0
    _write(state, at, kind)


@inlined
def _write(state: Detectors, at: int, kind: int) -> None:
    alert, episode = state.alerts[state.written[0]], state.episodes[at, kind]
    alert.instrument, alert.kind, alert.is_open = at, kind, episode.is_open
    alert.begin_ns, alert.end_ns, alert.count = episode.begin_ns, episode.end_ns, episode.count
    alert.value, alert.baseline = episode.value, episode.baseline
    alert.score, alert.limit = episode.score, episode.limit
    state.written[0] += 1
