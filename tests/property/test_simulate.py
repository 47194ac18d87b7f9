"""Whatever the seed and the pieces it is asked for in, the synthetic exchange's market is sound."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.core.dtypes import MBO, MBP1
from mdtool.engine.simulate import Exchange
from tests.reference.book_check import BookCheck, Top

seeds = st.integers(0, 2**64 - 1)
rates = st.sampled_from([0.01, 1.0, 1000.0, 1e6, 1e8])
symbols = st.sampled_from([["AAPL"], ["MSFT", "X"], [f"S{n}" for n in range(7)]])
pieces = st.lists(st.integers(1, 900), min_size=1, max_size=6)


@given(seed=seeds, rate=rates, symbols=symbols, pieces=pieces)
@settings(max_examples=40)
def test_every_record_follows_from_those_before_it(seed, rate, symbols, pieces):
    exchange, check = Exchange(symbols, seed, rate), BookCheck()
    for n in pieces:
        records = exchange.generate(n)
        assert len(records) >= n
        check.follow(records)
        assert not check.is_inside_event


@given(seed=seeds, rate=rates, symbols=symbols, pieces=pieces)
@settings(max_examples=40)
def test_pieces_of_any_size_add_up_to_the_same_records(seed, rate, symbols, pieces):
    in_pieces = Exchange(symbols, seed, rate)
    together = np.concatenate([in_pieces.generate(n) for n in pieces])
    at_once = Exchange(symbols, seed, rate).generate(len(together))
    assert at_once.tobytes() == together.tobytes()


@given(seed=seeds, symbols=symbols)
@settings(max_examples=25)
def test_quotes_are_the_best_levels_of_the_book_that_the_orders_make(seed, symbols):
    orders = Exchange(symbols, seed).generate(2000)
    check = BookCheck()
    check.follow(orders)
    expected = [
        quote_of(record, after)
        for record, (_, before, after) in zip(orders, check.tops, strict=True)
        if record["action"] == b"T" or (record["action"] in b"ACM" and before != after)
    ]
    quotes = Exchange(symbols, seed).generate(2000, "mbp-1")
    assert quotes.tolist() == expected


def quote_of(record: np.void, top: Top) -> tuple:
    """Return the MBP1 record, as a tuple, of an order book record and the levels it left."""
    own = {name: record[name] for name in MBO.names if name in MBP1.names}
    levels = {f"{name}_00": value for name, value in top._asdict().items()}
    values = own | levels | {"length": 20, "rtype": 1, "depth": 0}
    return tuple(np.array(tuple(values[name] for name in MBP1.names), MBP1).tolist())
