"""Runs of ticks put together and cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.ticks import Reason, Ticks


def run(fates: str, first_price: int = 100) -> Ticks:
    """Return a run of one frame a letter: `.` is a tick, any other is refused for its volume."""
    accepted = np.array([k for k, fate in enumerate(fates) if fate == "."], np.uint32)
    refused = np.array([k for k, fate in enumerate(fates) if fate != "."], np.uint32)
    column = first_price + accepted.astype(np.int64)
    return Ticks(
        symbol=accepted * 0,
        price=column,
        volume=column + 1,
        exchange_timestamp=column + 2,
        ingest_timestamp=column + 3,
        offset=accepted,
        frames=len(fates),
        refused_offset=refused,
        refused_reason=np.full(len(refused), Reason.VOLUME, np.uint8),
    )


def as_lists(ticks: Ticks) -> dict[str, object]:
    values = {field.name: getattr(ticks, field.name) for field in dataclasses.fields(Ticks)}
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("number", range(9))
def test_a_run_cut_anywhere_and_put_together_is_itself(number):
    fates = "..v.vv..."
    whole = run(fates)
    first, rest = run(fates[:number]), whole.from_frame(number)
    assert rest.frames == len(fates) - number
    assert as_lists(Ticks.concatenate([first, rest])) == as_lists(whole)


@pytest.mark.parametrize("number", [9, 10, 2**40])
def test_nothing_is_left_behind_the_last_frame(number):
    rest = run("..v.vv..v").from_frame(number)
    assert as_lists(rest) == as_lists(Ticks.empty())


def test_runs_are_counted_on_from_each_other():
    ticks = Ticks.concatenate([run(".v"), Ticks.empty(), run("v"), run("..", first_price=200)])
    assert ticks.frames == 5
    assert ticks.offset.tolist() == [0, 3, 4]
    assert ticks.refused_offset.tolist() == [1, 2]
    assert ticks.price.tolist() == [100, 200, 201]


def test_the_parts_stay_as_they_were():
    parts = [run("."), run(".")]
    Ticks.concatenate(parts)
    assert [part.offset.tolist() for part in parts] == [[0], [0]]


def test_dtypes_survive():
    ticks = Ticks.concatenate([run(".v"), run("v.")]).from_frame(1)
    assert ticks.symbol.dtype == ticks.offset.dtype == ticks.refused_offset.dtype == np.uint32
    assert ticks.price.dtype == np.int64
    assert ticks.refused_reason.dtype == np.uint8


def test_no_runs_are_an_empty_run():
    assert as_lists(Ticks.concatenate([])) == as_lists(Ticks.empty())


def test_reasons_have_the_numbers_of_the_contract():
    contract = dict(marketdata_pb2.RefusalReason.items())
    assert {reason.name: int(reason) for reason in Reason} == {
        name: number for name, number in contract.items() if number
    }
    assert Reason.TIMESTAMP.label == "timestamp"
