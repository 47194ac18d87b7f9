"""Latest quotes are those of a plain walk over the records, however these come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.dtypes import F_LAST, F_MAYBE_BAD_BOOK, MBO, MBP1, MBP10, OHLCV, TRADE
from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.rebuild import Rebuild
from mdtool.engine.book.view import BookView
from mdtool.engine.quotes import LatestQuotes
from mdtool.wire.dbn_records import DTYPES, RTYPE_BBO_1S
from tests.reference.quotes import PlainQuotes
from tests.support.book_streams import deep, with_snapshots
from tests.support.instruments import batch, index_of

PRICES = st.sampled_from([*range(-2, 3), UNDEF_PRICE])
START_NS = 1_700_000_000 * 10**9


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from([MBP1, MBP10, TRADE]))
    rows = draw(
        st.lists(
            st.tuples(
                *(st.integers(1, 2), st.integers(1, 3), st.sampled_from([b"A", b"C", b"T", b"N"])),
                *(st.sampled_from([0, F_LAST]), PRICES, st.integers(0, 2), PRICES, PRICES),
            ),
            max_size=30,
        )
    )
    made = np.zeros(len(rows), dtype)
    names = ["publisher_id", "instrument_id", "action", "flags", "price", "size"]
    names += ["bid_px_00", "ask_px_00"] if dtype != TRADE else []
    for at, row in enumerate(rows):
        for name, value in zip(names, row, strict=False):
            made[name][at] = value
    made["ts_recv"] = START_NS + np.arange(len(made))
    return made


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 3), PRICES, PRICES, PRICES), min_size=1, max_size=5),
        max_size=6,
    )
)
def test_samples_of_best_prices_have_the_last_trade_too(batches):
    latest, known, seconds = LatestQuotes(), {}, 0
    for rows in batches:
        samples = np.zeros(len(rows), DTYPES[RTYPE_BBO_1S])
        before = dict(known)
        for sample, (instrument_id, bid, ask, last) in zip(samples, rows, strict=True):
            seconds += 1
            sample["publisher_id"], sample["instrument_id"] = 1, instrument_id
            sample["bid_px_00"], sample["ask_px_00"], sample["price"] = bid, ask, last
            sample["ts_recv"] = START_NS + seconds
            sample["ts_event"] = START_NS  # the last trade is of before
            before_last = known.get(instrument_id, (UNDEF_PRICE,) * 3)[2]
            known[instrument_id] = (bid, ask, before_last if last == UNDEF_PRICE else last)
        quotes = latest.update(batch(samples))
        found = {int(quote["instrument"]): quote for quote in quotes}
        for instrument_id, prices in known.items():
            is_changed = prices != before.get(instrument_id, (UNDEF_PRICE,) * 3)
            if is_changed:
                quote = found[index_of(1, instrument_id)]
                assert tuple(int(quote[name]) for name in ("bid", "ask", "last")) == prices


def test_a_sample_after_a_trade_at_the_same_price_is_another_quote():
    latest, sample = LatestQuotes(), np.zeros(1, DTYPES[RTYPE_BBO_1S])
    sample["bid_px_00"], sample["ask_px_00"], sample["price"] = 99, 101, 100
    sample["ts_event"], sample["ts_recv"] = START_NS, START_NS + 1
    assert len(latest.update(batch(sample))) == 1
    assert len(latest.update(batch(sample))) == 0
    sample["ts_event"], sample["ts_recv"] = START_NS + 2, START_NS + 3
    (quote,) = latest.update(batch(sample))
    assert quote["ts_recv"] == START_NS + 3


@given(st.lists(arrays(), max_size=6))
def test_quotes_are_those_of_a_plain_walk(batches):
    latest, plain = LatestQuotes(), PlainQuotes()
    for records in batches:
        quotes = latest.update(batch(records))
        changed = plain.update(records)
        keys = {index_of(*key): key for key in changed}
        assert sorted(quotes["instrument"].tolist()) == sorted(keys)
        for quote in quotes:
            key = keys[int(quote["instrument"])]
            told = tuple(int(quote[name]) for name in ("bid", "ask", "last"))
            assert told == plain.quotes[key]
            assert quote["ts_recv"] >= START_NS


@given(stream=st.one_of(deep(), with_snapshots()), data=st.data())
def test_quotes_of_orders_are_those_of_their_books(stream, data):
    latest, rebuild, told = LatestQuotes(), Rebuild(), {}
    while len(stream):
        records = stream[: data.draw(st.integers(1, len(stream)))]
        stream = stream[len(records) :]
        for quote in latest.update(batch(records)):
            told[int(quote["instrument"])] = quote
        rebuild.update(batch(records))
        for key in rebuild.books.instruments().tolist():
            view = BookView(rebuild.books, key)
            best = view.best("B").price, view.best("A").price
            if key in told:
                quote = told[key]
                assert (int(quote["bid"]), int(quote["ask"])) == best
                assert bool(quote["is_partial"]) == view.is_partial
            else:
                assert (*best, view.is_partial) == (UNDEF_PRICE, UNDEF_PRICE, False)


def test_quotes_of_a_partial_book_are_marked():
    latest = LatestQuotes()
    orders = np.zeros(3, MBO)
    orders["publisher_id"], orders["instrument_id"] = 1, 7
    orders["order_id"] = [1, 2, 3]
    orders["action"], orders["side"] = b"A", [b"B", b"A", b"A"]
    orders["price"], orders["size"] = [99, 101, 102], 1
    orders["flags"] = F_LAST
    orders["ts_recv"] = START_NS
    (quote,) = latest.update(batch(orders))  # who knows what rested before them
    assert (quote["bid"], quote["ask"], quote["is_partial"]) == (99, 101, True)
    clear = np.zeros(1, MBO)
    clear["publisher_id"], clear["instrument_id"] = 1, 7
    clear["action"], clear["price"], clear["flags"] = b"R", UNDEF_PRICE, F_LAST
    (quote,) = latest.update(batch(clear))
    assert (quote["bid"], quote["ask"], quote["is_partial"]) == (UNDEF_PRICE, UNDEF_PRICE, False)
    (quote,) = latest.update(batch(orders[1:]))
    assert (quote["bid"], quote["ask"], quote["last"]) == (UNDEF_PRICE, 101, UNDEF_PRICE)
    assert quote["ts_recv"] == START_NS
    assert quote["instrument"] == index_of(1, 7)
    assert not quote["is_partial"]


@pytest.mark.parametrize("dtype", [MBP1, MBP10])
def test_so_are_those_that_their_publisher_doubts(dtype):
    latest, levels = LatestQuotes(), np.zeros(1, dtype)
    levels["bid_px_00"], levels["ask_px_00"] = 99, 101
    levels["flags"] = F_LAST | F_MAYBE_BAD_BOOK
    (quote,) = latest.update(batch(levels))
    assert (quote["bid"], quote["ask"], quote["is_partial"]) == (99, 101, True)
    levels["flags"] = F_LAST
    (quote,) = latest.update(batch(levels))
    assert not quote["is_partial"]


def test_books_are_seen_between_events_only():
    latest = LatestQuotes()
    orders = np.zeros(3, MBO)
    orders["instrument_id"] = 7
    orders["order_id"] = [0, 1, 2]
    orders["action"], orders["side"] = [b"R", b"A", b"A"], [b"N", b"B", b"A"]
    orders["price"], orders["size"] = [UNDEF_PRICE, 99, 98], 1
    assert len(latest.update(batch(orders))) == 0
    cancel = orders[2:].copy()
    cancel["action"], cancel["flags"] = b"C", F_LAST
    (quote,) = latest.update(batch(cancel))
    assert (quote["bid"], quote["ask"]) == (99, UNDEF_PRICE)


@pytest.mark.parametrize("dtype", [MBO, MBP1, TRADE])
def test_nothing_comes_of_nothing(dtype):
    assert len(LatestQuotes().update(batch(np.empty(0, dtype)))) == 0


def test_records_without_quotes_change_nothing():
    assert len(LatestQuotes().update(batch(np.zeros(5, OHLCV)))) == 0
