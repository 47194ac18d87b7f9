"""The plain check of a market by order finds each kind of damage, so that its silence counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mdtool.core.dtypes import MBO
from tests.reference.book_check import BookCheck, Fault

TICK = 10_000_000


def mbo(*rows: tuple) -> np.ndarray:
    """Return records of (packet, action, side, price in ticks, size, order id, flags)."""
    records = np.zeros(len(rows), MBO)
    for record, (packet, action, side, ticks, size, order_id, flags) in zip(
        records, rows, strict=True
    ):
        record["instrument_id"] = 1
        record["sequence"] = packet
        record["ts_event"] = 100 + packet
        record["ts_recv"] = 200 + packet
        record["action"], record["side"] = action, side
        record["price"] = ticks * TICK if action != "R" else 2**63 - 1
        record["size"], record["order_id"], record["flags"] = size, order_id, flags
    return records


SOUND = mbo(
    (0, "R", "N", 0, 0, 0, 32),
    (0, "A", "B", 99, 5, 1, 32),
    (0, "A", "A", 101, 3, 2, 32),
    (0, "A", "A", 101, 4, 3, 32 | 128),
    (1, "A", "B", 100, 2, 4, 128),
    (2, "M", "B", 100, 1, 4, 128),
    (3, "T", "B", 101, 5, 5, 0),
    (3, "F", "A", 101, 3, 2, 0),
    (3, "F", "A", 101, 2, 3, 0),
    (3, "C", "A", 101, 3, 2, 0),
    (3, "M", "A", 101, 2, 3, 128),
    (4, "C", "B", 100, 1, 4, 128),
)
ADD, MODIFY, TRADE, FIRST_FILL, LAST_FILL, FILLED, FILLED_PARTLY, CANCEL = range(4, 12)


def test_a_sound_stream_passes():
    check = BookCheck()
    check.follow(SOUND)
    assert check.events == 5
    assert not check.is_inside_event
    assert check.books[1].top() == (99 * TICK, 101 * TICK, 5, 2, 1, 1)


def field(index: int, name: str, value: object) -> Callable[[np.ndarray], np.ndarray]:
    def damage(records: np.ndarray) -> np.ndarray:
        records[name][index] = value
        return records

    return damage


def without(index: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda records: np.delete(records, index)


def twice(index: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda records: np.insert(records, index, records[index])


def swapped(index: int) -> Callable[[np.ndarray], np.ndarray]:
    order = np.arange(len(SOUND))
    order[[index, index + 1]] = index + 1, index
    return lambda records: records[order]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (without(0), "no snapshot came before it"),
        (without(ADD), "an unknown order"),
        (without(MODIFY), "not all that rests"),
        (without(TRADE), "a fill without a trade"),
        (without(FIRST_FILL), "a fill out of turn"),
        (without(LAST_FILL), "a trade without all its fills"),
        (without(FILLED), "fills that never reach the book"),
        (twice(0), "a second clear"),
        (twice(ADD), "two events at one time"),
        (twice(LAST_FILL), "more filled than"),
        (twice(FILLED), "an unknown order"),
        (swapped(FIRST_FILL), "a fill out of turn"),
        (swapped(LAST_FILL), "a trade without all its fills"),
        (field(2, "order_id", 1), "a known order"),
        (field(ADD, "flags", 0), "two times in an event"),
        (field(ADD, "price", 101 * TICK), "crossed or locked"),
        (field(ADD, "price", 102 * TICK), "crossed or locked"),
        (field(ADD, "price", 100 * TICK + 1), "off the tick grid"),
        (field(ADD, "size", 0), "no size"),
        (field(ADD, "side", b"N"), "no side"),
        (field(ADD, "ts_recv", 150), "ts_recv goes back"),
        (field(ADD, "ts_event", 99), "ts_event goes back"),
        (field(ADD, "ts_event", 300), "received before it happened"),
        (field(MODIFY, "sequence", 0), "sequence goes back"),
        (field(MODIFY, "side", b"A"), "another side than the order's"),
        (field(MODIFY, "size", 2), "nothing changed"),
        (field(TRADE, "size", 6), "a trade without all its fills"),
        (field(TRADE, "order_id", 4), "a resting aggressor"),
        (field(FIRST_FILL, "price", 100 * TICK), "another price than its trade's"),
        (field(FIRST_FILL, "side", b"B"), "a fill on the aggressor's side"),
        (field(FIRST_FILL, "size", 4), "more filled than rests"),
        (field(FIRST_FILL, "flags", 128), "a trade without all its fills"),
        (field(FILLED_PARTLY, "size", 1), "not what the fill left"),
        (field(FILLED_PARTLY, "action", b"C"), "a cancel of what is filled in part"),
        (field(CANCEL, "price", 99 * TICK), "another price than the order's"),
        (field(CANCEL, "size", 2), "not all that rests"),
    ],
)
def test_each_kind_of_damage_is_found(damage, fault):
    with pytest.raises(Fault, match=fault):
        BookCheck().follow(damage(SOUND.copy()))


def test_a_side_may_not_be_empty():
    with pytest.raises(Fault, match="an empty side"):
        BookCheck().follow(np.append(SOUND, mbo((5, "C", "B", 99, 5, 1, 128))))
