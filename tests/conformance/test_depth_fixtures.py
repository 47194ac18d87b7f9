"""MBP-10 and MBP-1 out of MBO, against what Databento made of the same moments of ESH1.

Its fixtures have two records of each schema, from one instant on. The books before them are not
given, but what the records show of them is, which is enough to make them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mdtool.adapters.dbn_files import open_source
from mdtool.core.dtypes import MBO, MBP1, MBP10, RTYPE_MBO, TRADE, record_length
from mdtool.core.units import parse_price
from mdtool.engine.book.state import Books
from tests.reference.book import UNDEF_PRICE
from tests.support.instruments import bare, batch

Fixture = Callable[[str], np.ndarray]
Row = tuple[bytes, int, int]
"""Side, price and size of a resting order."""

SHOWN = {"mbp-10": 10, "mbp-1": 1, "tbbo": 1}
THE_ORDER = 1 << 40
"""Its id is not told by an MBP record, and no order of a remade book has it."""


@pytest.fixture(params=[1, 2, 3], ids="v{}".format)
def fixture(request: pytest.FixtureRequest, real_data: Path) -> Fixture:
    """Reads the records of a schema from the fixture of one DBN version."""

    def records_of(schema: str) -> np.ndarray:
        path = real_data / "dbn" / f"test_data.{schema}.v{request.param}.dbn.zst"
        with open_source(str(path)) as source:
            return np.concatenate([*bare(source)])

    return records_of


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("schema", SHOWN)
def test_what_a_record_tells_of_makes_that_record_again(fixture, schema, number):
    told = fixture(schema)[number]
    shown = SHOWN[schema]
    before = adds(rows_before(told, shown))
    change = told_mbo([told])
    if told["action"] == b"C":
        before = np.concatenate([before, resting_as(change)])
    assert made(before, change, shown) == told.tobytes()


def test_a_change_of_level_9_is_told_and_one_of_level_10_is_not(fixture):
    mbo, mbp10 = fixture("mbo"), fixture("mbp-10")
    assert mbo["sequence"][1] < mbp10["sequence"][1]
    before = np.concatenate([adds(rows_of(mbp10[0], 10)), resting_as(mbo)])
    assert made(before, mbo, 10) == mbp10[0].tobytes()


def test_changes_below_the_best_levels_are_not_told_in_mbp_1(fixture):
    mbo, mbp10, mbp1 = fixture("mbo"), fixture("mbp-10"), fixture("mbp-1")
    assert mbp10["sequence"][1] < mbp1["sequence"][0]
    cancelled = told_mbo([mbp10[1]])
    rows = rows_of(mbp10[1], 10)
    before = np.concatenate([adds(rows), resting_as(mbo), resting_as(cancelled)])
    stream = np.concatenate([mbo, cancelled, told_mbo(mbp1)])
    stream["order_id"][3:] = THE_ORDER + np.arange(1, 3)
    assert made(before, stream, 1) == mbp1.tobytes()


def test_a_trade_shows_the_book_before_it(fixture):
    """The second trade takes all that the best level has, which is what the first one left."""
    first, second = fixture("tbbo")
    bid, ask = parse_price("3720.25"), parse_price("3720.5")
    bids = [(b"B", bid, size) for size in [2, 2, 1, *split(21, 13)]]
    asks = [(b"A", ask, size) for size in split(7, 6)]
    assert first["bid_sz_00"] - first["size"] == second["bid_sz_00"] == second["size"]
    before = adds([*bids, *asks])
    filled = before[1:4].copy()
    filled["action"] = b"C"
    later = adds([(b"A", ask, size) for size in split(15, 9)], first_id=100)[1:]
    stream = np.concatenate([told_mbo([first]), filled, later, told_mbo([second])])
    books = Books()
    books.apply(batch(before))
    records = np.concatenate([*bare(books.events(batch(stream), 1))])
    trades = records[records["action"] == b"T"]
    assert trades.tobytes() == fixture("tbbo").tobytes()
    for name in set(TRADE.names) - {"length", "rtype"}:
        assert trades[name].tolist() == fixture("trades")[name].tolist()


def made(before: np.ndarray, stream: np.ndarray, shown: int) -> bytes:
    """Return the depth records that a stream makes of the books that it finds."""
    books = Books()
    books.apply(batch(before))
    dtype = MBP10 if shown == 10 else MBP1
    return np.concatenate([np.empty(0, dtype), *bare(books.events(batch(stream), shown))]).tobytes()


def rows_of(record: np.void, shown: int) -> list[Row]:
    """Return orders that together are the levels that a depth record shows."""
    return [
        (side, int(record[f"{name}_px_{level:02}"]), size)
        for level in range(shown)
        for side, name in ((b"B", "bid"), (b"A", "ask"))
        if record[f"{name}_px_{level:02}"] != UNDEF_PRICE
        for size in split(record[f"{name}_sz_{level:02}"], record[f"{name}_ct_{level:02}"])
    ]


def rows_before(record: np.void, shown: int) -> list[Row]:
    """Return the orders that rest without the one that a depth record tells of."""
    rows = rows_of(record, shown)
    if record["action"] != b"A":
        return rows
    place = (bytes(record["side"]), int(record["price"]))
    others = [row for row in rows if row[:2] != place]
    size = sum(row[2] for row in rows if row[:2] == place) - int(record["size"])
    count = sum(row[:2] == place for row in rows) - 1
    return [*others, *((*place, part) for part in split(size, count))]


def split(size: int, count: int) -> Iterator[int]:
    """Yield sizes of orders that are so many and add up."""
    yield int(size) - int(count) + 1
    yield from [1] * (int(count) - 1)


def adds(rows: Iterable[Row], first_id: int = 1) -> np.ndarray:
    """Return a clear and the adds of orders, with ids that count."""
    rows = [(b"N", UNDEF_PRICE, 0), *rows]
    records = np.zeros(len(rows), MBO)
    records["length"], records["rtype"] = record_length(MBO), RTYPE_MBO
    records["publisher_id"], records["instrument_id"] = 1, 5482
    records["side"], records["price"], records["size"] = zip(*rows, strict=True)
    records["order_id"] = np.arange(first_id - 1, first_id - 1 + len(rows))
    records["action"] = [b"R", *[b"A"] * (len(rows) - 1)]
    return records


def resting_as(cancels: np.ndarray) -> np.ndarray:
    """Return the adds of the orders that are cancelled."""
    records = cancels.copy()
    records["action"] = b"A"
    return records


def told_mbo(records: Iterable[np.void]) -> np.ndarray:
    """Return the MBO records that depth records tell of."""
    told = np.stack([*records])
    mbo = np.zeros(len(told), MBO)
    for name in set(MBO.names) & set(told.dtype.names):
        mbo[name] = told[name]
    mbo["length"], mbo["rtype"] = record_length(MBO), RTYPE_MBO
    mbo["order_id"] = THE_ORDER
    return mbo
