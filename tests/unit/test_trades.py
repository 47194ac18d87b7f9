"""Columns of trades, and runs of frames put together and cut."""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
import pytest

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import PROBE, Frames, Reason, TradeRun, Trades, take_run
from mdtool.wire._pb import marketdata_pb2


def run(fates: str, first_price: int = 100) -> Frames:
    """Return one frame a letter: `.` is a trade, any other is refused for its volume."""
    accepted = np.array([k for k, fate in enumerate(fates) if fate == "."], np.uint32)
    refused = np.array([k for k, fate in enumerate(fates) if fate != "."], np.uint32)
    column = first_price + accepted.astype(np.int64)
    return Frames(
        trades=Trades(accepted * 0, column, column + 1, column + 2, column + 3),
        offset=accepted,
        count=len(fates),
        refused_offset=refused,
        refused_reason=np.full(len(refused), Reason.VOLUME, np.uint8),
    )


def as_lists(columns: object) -> dict[str, object]:
    values = {
        field.name: getattr(columns, field.name)
        for field in dataclasses.fields(columns)  # type: ignore[arg-type]
    }
    return {
        name: value.tolist()
        if isinstance(value, np.ndarray)
        else as_lists(value)
        if isinstance(value, Trades)
        else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("count", range(9))
def test_a_run_cut_anywhere_and_put_together_is_itself(count):
    fates = "..v.vv..."
    whole = run(fates)
    first, rest = whole.first(count), whole.after(count)
    assert as_lists(first) == as_lists(run(fates[:count]))
    assert rest.count == len(fates) - count
    assert as_lists(Frames.concatenate([first, rest])) == as_lists(whole)


@pytest.mark.parametrize("count", [9, 10, 2**40])
def test_nothing_is_left_behind_the_last_frame(count):
    assert as_lists(run("..v.vv..v").after(count)) == as_lists(Frames.empty())


def test_runs_are_counted_on_from_each_other():
    frames = Frames.concatenate([run(".v"), Frames.empty(), run("v"), run("..", first_price=200)])
    assert frames.count == 5
    assert frames.offset.tolist() == [0, 3, 4]
    assert frames.refused_offset.tolist() == [1, 2]
    assert frames.trades.price.tolist() == [100, 200, 201]


def test_the_parts_stay_as_they_were():
    parts = [run("."), run(".")]
    Frames.concatenate(parts)
    assert [part.offset.tolist() for part in parts] == [[0], [0]]


def test_dtypes_survive():
    frames = Frames.concatenate([run(".v"), run("v.")]).after(1)
    for column in (frames.trades.symbol, frames.offset, frames.refused_offset):
        assert column.dtype == np.uint32
    assert frames.trades.price.dtype == np.int64
    assert frames.refused_reason.dtype == np.uint8


def test_no_runs_are_an_empty_run():
    assert as_lists(Frames.concatenate([])) == as_lists(Frames.empty())


def test_a_slice_of_trades_is_a_view():
    trades = run("...").trades
    assert np.shares_memory(trades[1:].price, trades.price)
    assert trades[np.array([2, 0])].price.tolist() == [102, 100]


def test_a_run_in_a_stream_is_cut_by_its_sequences():
    whole = TradeRun(SymbolTable(), "s", 10, run(".v.."))
    assert whole.next_sequence == 14
    assert whole.since(10) is whole
    rest = whole.since(12)
    assert (rest.first_sequence, rest.next_sequence) == (12, 14)
    assert rest.trades.price.tolist() == [102, 103]
    assert whole.since(20).next_sequence == 20


@pytest.mark.parametrize(
    ("max_frames", "taken"),
    [(1, [1] * 6), (2, [2, 1, 2, 1]), (3, [3, 3]), (4, [3, 3]), (6, [6])],
)
def test_runs_are_taken_in_order_up_to_a_length(max_frames, taken):
    symbols = SymbolTable()
    runs = deque(TradeRun(symbols, "s", first, run("...")) for first in (5, 8))
    found = []
    while runs:
        found.append(take_run(runs, max_frames))
    assert [each.frames.count for each in found] == taken
    assert [each.first_sequence for each in found] == [
        5 + sum(taken[:k]) for k in range(len(taken))
    ]


def test_reasons_have_the_numbers_of_the_contract():
    contract = dict(marketdata_pb2.RefusalReason.items())
    assert contract.pop("PROBE") == PROBE
    assert {reason.name: int(reason) for reason in Reason} == {
        name: number for name, number in contract.items() if number
    }
    assert Reason.TIMESTAMP.label == "timestamp"
