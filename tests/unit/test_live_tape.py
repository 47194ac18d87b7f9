"""The last trades of every book."""

from __future__ import annotations

import numpy as np

from mdtool.cli.live.feed import TRADES_KEPT, Tape
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch, index_of


def test_trades_are_stored_by_book_latest_first():
    tape = Tape()
    orders = streams.mbo(60)
    for start in range(0, 60, 7):
        tape.add(batch(orders[start : start + 7]))
    for instrument_id in (1, 2):
        trades = orders[(orders["action"] == b"T") & (orders["instrument_id"] == instrument_id)]
        assert np.array_equal(tape.last([index_of(1, instrument_id)], 5), trades[::-1][:5])


def test_only_the_last_trades_are_stored():
    tape = Tape()
    trades = streams.mbo(5 * TRADES_KEPT)
    trades["action"] = b"T"
    trades["instrument_id"] = 1
    tape.add(batch(trades[: TRADES_KEPT + 3]))
    tape.add(batch(trades[TRADES_KEPT + 3 :]))
    kept = tape.last([index_of(1, 1)], 10**6)
    assert kept["order_id"].tolist() == list(range(5 * TRADES_KEPT - 1, 4 * TRADES_KEPT - 1, -1))


def test_publishers_are_told_apart_and_a_book_without_trades_has_none():
    tape = Tape()
    trades = streams.mbo(1)
    trades["publisher_id"] = 3
    tape.add(batch(trades))
    assert len(tape.last([index_of(3, 1)], 9)) == 1
    assert len(tape.last([index_of(1, 1)], 9)) == 0


def test_fills_and_orders_are_no_trades():
    tape = Tape()
    records = streams.mbo(4)
    records["action"] = [b"A", b"F", b"C", b"M"]
    tape.add(batch(records))
    assert len(tape.last([index_of(1, 1)], 9)) == 0
