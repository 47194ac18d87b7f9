"""Detectors: against their reference, at their edges, and as a command."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import (
    F_SNAPSHOT,
    MBO,
    MBP1,
    OHLCV,
    RTYPE_MBO,
    RTYPE_MBP1,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    RTYPE_TRADE,
    TRADE,
)
from mdtool.core.errors import ConfigError
from mdtool.core.instruments import Instruments
from mdtool.core.records import trades_of
from mdtool.core.units import PRICE_SCALE
from mdtool.engine.book.state import Books
from mdtool.engine.detect import (
    KINDS,
    Alert,
    Detector,
    DetectRule,
    DetectStream,
    Rules,
    events_of,
    severity,
)
from mdtool.engine.detect_kernel import EVENT, RULE
from mdtool.engine.simulate import Exchange
from mdtool.services.alerts.rules import load_rules
from tests.reference.detect import UNDEF, Symbol

SECOND = 10**9
START = 1_700_000_000 * SECOND
RULE_OF_TESTS = DetectRule(
    warm_up=5,
    cool_down_s=0.5,
    jump_z=3,
    jump_min=0.01,
    burst_z=2,
    burst_trades=2,
    burst_peak=1.5,
    off_quote=0.01,
    quote_age_s=1,
    crossed_s=0.2,
    spread_ratio=2,
    spread_s=0.2,
    stale_ratio=4,
    stale_longest=1.5,
    stale_s=0.1,
    stale_after_s=0.2,
    band=0.2,
)
prices = st.integers(80, 120)
quotes = st.none() | st.tuples(prices | st.just(UNDEF), prices | st.just(UNDEF))
trades = st.none() | st.tuples(prices, st.integers(1, 9))
steps = st.tuples(st.sampled_from([-50, 0, 10, 50, 100, 900]), trades, quotes, st.integers(0, 2))


def events_from(rows):
    """Make EVENTs of (ts, trade, quote, instrument) rows."""
    made = np.zeros(len(rows), EVENT)
    made["price"] = made["bid"] = made["ask"] = UNDEF
    made["sequence"] = -1
    for event, (ts, trade, quote, instrument) in zip(made, rows, strict=True):
        event["ts_ns"], event["instrument"] = ts, instrument
        if trade:
            event["price"], event["size"] = trade
        if quote:
            event["has_quote"], event["bid"], event["ask"] = 1, *quote
    return made


def closed(detector, events, cut=None):
    parts = [detector.update(part) for part in np.split(events, [cut or len(events)])]
    found = np.concatenate([*parts, detector.finish()])
    names = ("begin_ns", "end_ns", "count", "value", "baseline")
    return [
        (int(each["instrument"]), KINDS[each["kind"]], *(int(each[name]) for name in names))
        for each in found
        if not each["is_open"]
    ]


def detector_of(rule, symbols=("A", "B", "C")):
    made = Detector(Rules({"*": rule}))
    made.know(symbols)
    return made


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, min_size=20, max_size=120), st.integers(0, 120))
def test_episodes_are_those_of_the_reference_however_the_stream_is_cut(rows, cut):
    ts, taken = START, []
    for step_ms, trade, quote, instrument in rows:
        ts += step_ms * 10**6
        taken.append((ts, trade, quote, instrument))
    rule = dict(zip(RULE.names, RULE_OF_TESTS.row(), strict=True))
    plain = [Symbol(rule) for _ in range(3)]
    for at, trade, quote, instrument in taken:
        plain[instrument].take(at, trade, quote)
    expected = []
    for index, symbol in enumerate(plain):
        symbol.finish()
        expected += [(index, *each) for each in symbol.closed]
    found = closed(detector_of(RULE_OF_TESTS), events_from(taken), min(cut, len(taken)))
    assert sorted(found) == sorted(expected)


def calm(count=800, step_ns=SECOND // 10):
    """A market of one symbol, in which nothing is unusual."""
    return [
        (START + i * step_ns, (100_000 + i % 3, 5) if i % 2 else None, (99_990, 100_010), 0)
        for i in range(count)
    ]


def kinds(rows, rule=None):
    return [each[1] for each in closed(detector_of(rule or DetectRule()), events_from(rows))]


def test_a_calm_market_has_no_alerts():
    assert kinds(calm()) == []


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([(0.1, (101_000, 5), (100_990, 101_010))], ["jump"]),
        ([(0.1, (100_200, 5), None)], ["off-quote"]),
        ([(0.1, None, (100_010, 100_010)), (1.2, None, (99_990, 100_010))], ["crossed"]),
        ([(0.1, None, (100_010, 100_010)), (1.0, None, (99_990, 100_010))], []),
        ([(0.1, None, (99_000, 101_000)), (1.2, None, (99_990, 100_010))], ["spread"]),
        ([(6.0, None, (99_990, 100_010))], ["stale"]),
        ([(2.9, None, (99_990, 100_010))], []),
    ],
)
def test_each_kind(rows, kind):
    begin = calm()
    last = begin[-1][0]
    after = [(last + round(at * SECOND), trade, quote, 0) for at, trade, quote in rows]
    assert kinds([*begin, *after]) == kind


def test_a_burst_of_volume_and_a_price_outside_the_band():
    young = calm(400)
    assert kinds([*young, (young[-1][0] + SECOND // 10, (100_000, 2_000), None, 0)]) == []
    begin = calm(1_200)
    last = begin[-1][0]
    burst = [(last + SECOND // 10, (100_000, 2_000), None, 0)]
    assert kinds([*begin, *burst]) == ["burst"]
    outside = [(last + SECOND // 10, (89_000, 5), (88_990, 89_010), 0)]
    assert sorted(kinds([*begin, *outside])) == ["band", "jump"]
    within = DetectRule(low=0.000_05, high=0.000_2)
    assert kinds([*begin, *outside], within) == ["jump"]


def test_a_hole_in_a_sequence_that_has_none_is_a_gap_and_one_that_has_many_is_not_judged():
    events = events_from(calm(3_000))
    events["sequence"] = (np.arange(3_000) + 2**32 - 1_000) % 2**32
    assert closed(detector_of(DetectRule()), events) == []
    events["sequence"][2_000:] += 7
    [gap] = closed(detector_of(DetectRule()), events)
    assert gap[1] == "gap"
    assert gap[5] - gap[6] == 8
    events["sequence"] = np.arange(3_000) * 3
    assert closed(detector_of(DetectRule()), events) == []


def test_findings_within_the_cool_down_are_one_alert():
    begin = calm()
    last = begin[-1][0]
    quote = (last + 10 * SECOND, None, (99_990, 100_010), 0)
    prints = [(last + i * SECOND, (100_200, 5), (99_990, 100_010), 0) for i in (1, 3, 5, 11)]
    prints.insert(3, quote)
    found = closed(detector_of(DetectRule(stale_s=60)), events_from([*begin, *prints]))
    assert [each[4] for each in found] == [3, 1]
    assert found[0][2:4] == (last + SECOND, last + 5 * SECOND)


def test_what_lasts_is_one_alert_however_far_apart_its_quotes_are():
    begin = calm()
    last = begin[-1][0]
    crossed = [(last + i * 20 * SECOND, None, (100_010, 100_010), 0) for i in range(1, 5)]
    end = (last + 100 * SECOND, None, (99_990, 100_010), 0)
    found = closed(detector_of(DetectRule(stale_s=600)), events_from([*begin, *crossed, end]))
    assert [each[1:4] for each in found] == [("crossed", last + 20 * SECOND, last + 100 * SECOND)]


def test_quotes_of_a_partial_book_are_not_judged():
    orders = Exchange(seed=3).generate(20_000)
    orders = orders[(orders["flags"] & F_SNAPSHOT) == 0]
    events = events_of(Batch.of(orders), Books())
    quoted = events[events["has_quote"] == 1]
    assert len(quoted)
    assert (quoted["bid"] == UNDEF).all()


def test_time_without_events_opens_a_stale_alert_and_more_ends_it():
    detector = detector_of(DetectRule())
    rows = calm()
    last = rows[-1][0]
    detector.update(events_from(rows))
    assert len(detector.advance(last + 2 * SECOND)) == 0
    [found] = detector.advance(last + 6 * SECOND)
    assert found["is_open"]
    alert = Alert.of(found, "A")
    assert (alert.kind, alert.begin_ns, alert.as_dict()["end"]) == ("stale", last, None)
    assert len(detector.advance(last + 60 * SECOND)) == 0
    back = [(last + 61 * SECOND + i * SECOND, None, (99_990, 100_010), 0) for i in range(7)]
    assert len(detector.update(events_from(back[:6]))) == 0
    [end] = detector.update(events_from(back[6:]))
    assert (end["is_open"], end["end_ns"], end["begin_ns"]) == (0, last + 61 * SECOND, last)


def test_orders_make_the_trades_and_quotes_of_their_books_each_behind_what_made_it():
    batch = Batch.of(Exchange(seed=3).generate(20_000))
    events = events_of(batch, Books())
    opening = (batch.records["flags"] & F_SNAPSHOT) != 0
    assert not np.isin(events["ts_ns"], batch.index_timestamps[opening]).any()
    assert (np.diff(events["ts_ns"]) >= 0).all()
    trades = trades_of(batch.records)
    traded = events[events["price"] != UNDEF]
    for name in ("price", "size", "sequence"):
        assert traded[name].tolist() == trades[name].tolist()
    quotes = np.concatenate([part.records for part in Books().events(batch, 1)])
    quotes = quotes[(quotes["flags"] & F_SNAPSHOT) == 0]
    quoted = events[events["has_quote"] == 1]
    assert quoted["bid"].tolist() == quotes["bid_px_00"].tolist()
    assert quoted["ts_ns"].tolist() == quotes["ts_recv"].tolist()
    orders = events[events["has_quote"] == 0]
    assert orders["sequence"].tolist() == batch.records["sequence"][~opening].tolist()


def test_bars_are_judged_by_their_closes_and_volumes():
    bars = np.zeros(400, OHLCV)
    bars["rtype"] = RTYPE_OHLCV_1M
    bars["ts_event"] = START + np.arange(len(bars)) * 60 * SECOND
    bars["close"] = 100 * PRICE_SCALE
    bars["volume"] = 50
    stream = DetectStream(Rules())
    assert [*stream.update(Batch.of(bars[:300])), *stream.finish()] == []
    bars["close"][350:] = 105 * PRICE_SCALE
    bars["volume"][380] = 50_000
    found = [*stream.update(Batch.of(bars[300:])), *stream.finish()]
    assert [(alert.kind, alert.begin_ns) for alert in found] == [
        ("jump", START + 351 * 60 * SECOND),
        ("burst", START + 381 * 60 * SECOND),
    ]


def test_each_trade_is_judged_once_where_a_stream_shows_several_views_of_it():
    def shown(layout, rtype):
        records = np.zeros(200, layout)
        records["rtype"], records["action"], records["size"] = rtype, b"T", 5
        records["ts_recv"] = START + np.arange(200) * SECOND
        records["price"] = 100 * PRICE_SCALE
        records["price"][150] = 120 * PRICE_SCALE
        for side in {"bid_px_00", "ask_px_00"} & set(layout.names):
            records[side] = records["price"] + (side == "ask_px_00")
        return records

    def bars():
        made = np.zeros(200, OHLCV)
        made["rtype"], made["close"], made["volume"] = RTYPE_OHLCV_1S, 100 * PRICE_SCALE, 5
        made["ts_event"] = START + np.arange(200) * SECOND
        return made

    trades, quotes = shown(TRADE, RTYPE_TRADE), shown(MBP1, RTYPE_MBP1)
    orders = shown(MBO, RTYPE_MBO)
    for views in ([trades], [quotes], [trades, quotes], [quotes, trades, bars()], [trades, orders]):
        stream, resolver = DetectStream(Rules()), Resolver(Instruments(), "a stream")
        cut = [view[begin : begin + 10] for begin in range(0, 200, 10) for view in views]
        found = [each for part in cut for each in stream.update(resolver.batch(part))]
        found += stream.finish()
        findings = {each.kind: each.findings for each in found if each.kind in {"jump", "band"}}
        assert findings == {"jump": 2, "band": 1}


def test_severity_is_how_far_a_finding_is_above_its_limit():
    assert [severity(score, 2.0) for score in (2.0, 4.0, 10.0)] == ["low", "medium", "high"]


def test_the_first_pattern_that_fits_a_symbol_holds(tmp_path, monkeypatch):
    path = tmp_path / "mdtool.toml"
    path.write_text('[detect."ES*"]\nband = 0.02\n[detect."*"]\nwarm-up = 7\n')
    monkeypatch.setenv("MDTOOL_CONFIG", str(path))
    rules = load_rules()
    assert rules.rows["band"][rules.find("ESM4")] == 0.02
    assert rules.rows["warm_up"][rules.find("CLX5")] == 7
    path.write_text('[detect."ES*"]\nbend = 1\n')
    with pytest.raises(ConfigError, match=r"mdtool.toml: \[detect.ES\*\] bend: no such setting"):
        load_rules()
