"""What is made of a stream: quotes of its orders, bars of its trades, for whoever follows them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from mdtool.core.dtypes import BBO, MBO, MBP1, TRADE
from mdtool.core.records import Records, is_trade, trades_of
from mdtool.core.units import NS_PER_S, UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.engine.bar_stream import BarStream
from mdtool.engine.book.state import Books
from mdtool.engine.derived import Derived, Made
from mdtool.engine.simulate import Exchange
from tests.support.instruments import batch

QUOTES = ("tbbo", "mbp-1", "mbp-10")
ALL = ("trades", *QUOTES, "bbo-1s", "bbo-1m", "ohlcv-1s", "ohlcv-1m", "ohlcv-1h", "ohlcv-1d")
CUTS = (1, 7, 1_000, 100_000)


@pytest.fixture(scope="module")
def orders() -> Records:
    return Exchange(seed=3, rate=50.0).generate(6_000)


def made_of(records: Records, schemas, cut: int, own=("mbo",)) -> dict[str, list[Made]]:
    """All that is made of a stream that arrives in pieces, by schema."""
    derived = Derived(own)
    derived.follow("test", schemas)
    made: dict[str, list[Made]] = defaultdict(list)
    for begin in range(0, len(records), cut):
        for each in derived.update(batch(records[begin : begin + cut])):
            made[each.schema].append(each)
    for each in derived.close():
        if each.schema in schemas:
            made[each.schema].append(each)
    return made


def joined(made: list[Made]) -> Records:
    return np.concatenate([each.records for each in made])


def books_events(records: Records, depth) -> Records:
    return np.concatenate([each.records for each in Books().events(batch(records), depth)])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("schemas", [QUOTES, ("mbp-10",), ("mbp-1", "tbbo")])
def test_quotes_are_those_of_the_books(orders, schemas, cut):
    made = made_of(orders, schemas, cut)
    assert made.keys() == set(schemas)
    for schema, depth in {"mbp-1": 1, "mbp-10": 10}.items():
        if schema in schemas:
            assert np.array_equal(joined(made[schema]), books_events(orders, depth))
    if "tbbo" in schemas:
        tops = books_events(orders, 1)
        assert np.array_equal(joined(made["tbbo"]), tops[is_trade(tops)])


@pytest.mark.parametrize("cut", CUTS)
def test_bars_are_those_of_the_bar_stream_each_with_its_end(orders, cut):
    made = made_of(orders, ALL, cut)
    assert np.array_equal(joined(made["trades"]), trades_of(orders))
    for interval in ("1s", "1m", "1h", "1d"):
        stream = BarStream.parse(interval)
        expected = [*stream.update(batch(orders)), *stream.close()]
        bars = made[f"ohlcv-{interval}"]
        assert np.array_equal(joined(bars), np.concatenate([each.records for each in expected]))
        length_ns = stream._buckets.length_ns
        ends = [each.end_ns for each in bars]
        assert ends == sorted(set(ends))
        assert all((each.records["ts_event"] + length_ns == each.end_ns).all() for each in bars)


def samples_of(orders: Records, length_ns: int) -> list[tuple]:
    """The last quote of each instrument in each interval, plainly."""
    quotes, trades = books_events(orders, 1), trades_of(orders)
    last: dict[tuple[int, int], np.void] = {}
    for quote in quotes:
        end_ns = (int(quote["ts_recv"]) // length_ns + 1) * length_ns
        last[end_ns, int(quote["instrument_id"])] = quote
    rows = []
    for (end_ns, instrument_id), quote in sorted(last.items(), key=lambda item: item[0]):
        before = trades[(trades["instrument_id"] == instrument_id) & (trades["ts_recv"] < end_ns)]
        trade = before[-1] if len(before) else None
        rows.append(
            (
                end_ns,
                instrument_id,
                int(quote["bid_px_00"]),
                int(quote["ask_px_00"]),
                int(quote["sequence"]),
                UNDEF_PRICE if trade is None else int(trade["price"]),
                0 if trade is None else int(trade["size"]),
                UNDEF_TIMESTAMP if trade is None else int(trade["ts_event"]),
                b"N" if trade is None else bytes(trade["side"]),
            )
        )
    return rows


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("schema", "length_ns"), [("bbo-1s", NS_PER_S), ("bbo-1m", 60 * NS_PER_S)])
def test_samples_have_the_last_quote_and_the_last_trade(orders, schema, length_ns, cut):
    made = made_of(orders, [schema], cut)[schema]
    records = joined(made)
    assert records.dtype == BBO
    quoted = ["ts_recv", "instrument_id", "bid_px_00", "ask_px_00", "sequence"]
    fields = [*quoted, "price", "size", "ts_event", "side"]
    assert [tuple(each[name] for name in fields) for each in records] == samples_of(
        orders, length_ns
    )
    assert all((each.records["ts_recv"] == each.end_ns).all() for each in made)


def test_only_what_is_followed_is_made(orders):
    derived = Derived(["mbo"])
    assert derived.update(batch(orders[:2_000])) == []
    derived.follow("one", ["trades", "status", "mbo"])
    derived.follow("two", ["trades", "mbp-1"])
    assert {each.schema for each in derived.update(batch(orders[2_000:4_000]))} == {
        "trades",
        "mbp-1",
    }
    derived.follow("two", ())
    assert {each.schema for each in derived.update(batch(orders[4_000:5_000]))} == {"trades"}
    derived.follow("one", ())
    assert derived.update(batch(orders[5_000:])) == []


def test_a_follower_in_the_middle_gets_the_same_records_from_there(orders):
    derived = Derived(["mbo"])
    derived.update(batch(orders[:3_000]))
    derived.follow("late", ["mbp-1", "mbp-10", "ohlcv-1d"])
    made = [*derived.update(batch(orders[3_000:])), *derived.close()]
    for schema, depth in {"mbp-1": 1, "mbp-10": 10}.items():
        before = len(books_events(orders[:3_000], depth))
        tail = books_events(orders, depth)[before:]
        assert np.array_equal(joined([each for each in made if each.schema == schema]), tail)
    (day,) = [each for each in made if each.schema == "ohlcv-1d"]
    assert int(day.records["volume"].sum()) == int(trades_of(orders)["size"].sum())


@pytest.mark.parametrize(
    ("own", "makes"),
    [
        ({"mbo"}, set(ALL)),
        ({"mbo", "trades", "definition"}, set(ALL) - {"trades"}),
        ({"mbp-1"}, {"trades", "tbbo", *(name for name in ALL if name.startswith("ohlcv"))}),
        ({"trades", "ohlcv-1d"}, {"ohlcv-1s", "ohlcv-1m", "ohlcv-1h"}),
        ({"status"}, set()),
        (set(), set()),
    ],
)
def test_what_can_be_made_of_which_schemas(own, makes):
    assert Derived(own).schemas == makes


def test_without_books_no_quotes_are_made(orders):
    derived = Derived(["mbo"], has_books=False)
    assert not derived.schemas & {"mbp-1", "mbp-10", "tbbo", "bbo-1s"}
    derived.follow("test", ALL)
    made = derived.update(batch(orders))
    assert {each.records.dtype for each in made if each.schema == "trades"} == {TRADE}
    assert len(derived.books) == 0


def test_trades_and_their_quotes_of_quotes(orders):
    tops = books_events(orders, 1)
    assert tops.dtype == MBP1
    made = made_of(tops, ("trades", "tbbo"), 1_000, own=("mbp-1",))
    assert np.array_equal(joined(made["tbbo"]), tops[is_trade(tops)])
    assert np.array_equal(joined(made["trades"]), trades_of(tops))
    assert orders.dtype == MBO


class TestWithoutASchema:
    """Of a stream whose header names none, as of captures."""

    @pytest.mark.parametrize("cut", CUTS)
    def test_orders_make_what_they_make_of_a_stream_of_orders(self, orders, cut):
        made = made_of(orders, ALL, cut, own=None)
        known = made_of(orders, ALL, cut)
        assert made.keys() == known.keys()
        assert all(np.array_equal(joined(made[each]), joined(known[each])) for each in known)

    def test_the_first_trades_are_the_source(self, orders):
        derived = Derived(None)
        derived.follow("test", ["tbbo", "ohlcv-1d"])
        quotes = books_events(orders, 1)
        assert derived.update(batch(quotes[~is_trade(quotes)])) == []
        assert not derived.has_source
        derived.update(batch(trades_of(orders)))
        assert derived.has_source
        derived.update(batch(quotes))
        (day,) = [each for each in derived.close() if each.schema == "ohlcv-1d"]
        assert int(day.records["volume"].sum()) == int(trades_of(orders)["size"].sum())

    def test_what_the_stream_turns_out_to_have_is_made_no_longer(self, orders):
        derived = Derived(None)
        derived.follow("test", ["trades", "mbp-1"])
        half = len(orders) // 2
        assert {each.schema for each in derived.update(batch(orders[:half]))} == {"trades", "mbp-1"}
        assert derived.update(batch(trades_of(orders[:half]))) == []
        assert {each.schema for each in derived.update(batch(orders[half:]))} == {"mbp-1"}

    def test_single_records_make_trades_without_books(self, orders):
        derived = Derived(None, is_whole=False)
        assert derived.needs_whole(["tbbo"])
        assert not derived.needs_whole(["trades"])
        derived.follow("test", ALL)
        assert [each.schema for each in derived.update(batch(orders))] == ["trades"]
