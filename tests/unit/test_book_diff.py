import numpy as np
import pytest

from mdtool.core.dtypes import MBP1, MBP10
from mdtool.engine.book.diff import Comparison


@pytest.fixture
def records() -> np.ndarray:
    records = np.zeros(100, MBP10)
    records["sequence"] = np.arange(100)
    return records


def cut(records: np.ndarray, *at: int) -> list[np.ndarray]:
    return np.split(records, at)


def test_equal_streams_however_they_are_cut(records):
    comparison = Comparison(MBP10)
    assert comparison.run(cut(records, 3, 3, 50), cut(records.copy(), 20, 99)) is None
    assert comparison.equal == 100


def test_streams_without_records():
    comparison = Comparison(MBP1)
    assert comparison.run([], [np.empty(0, MBP1)]) is None
    assert comparison.equal == 0


@pytest.mark.parametrize("at", [0, 41, 99])
@pytest.mark.parametrize("cuts", [(), (41,), (10, 42, 98)])
def test_the_first_that_differs_and_its_fields(records, at, cuts):
    theirs = records.copy()
    theirs["price"][at] = 1
    theirs["ask_ct_09"][at] = 2
    theirs["size"][at + 1 :] = 9
    found = Comparison(MBP10).run(cut(records, *cuts), [theirs])
    assert (found.record, found.fields) == (at, ("price", "ask_ct_09"))
    assert (found.ours["price"].tolist(), found.theirs["price"].tolist()) == ([0], [1])


@pytest.mark.parametrize("ours_is_longer", [True, False])
@pytest.mark.parametrize("end", [0, 60])
@pytest.mark.parametrize("cuts", [(), (60,), (20, 60, 60, 80)])
def test_one_that_ends_before_the_other(records, ours_is_longer, end, cuts):
    longer, shorter = cut(records, *cuts), [records[:end]]
    pair = (longer, shorter) if ours_is_longer else (shorter, longer)
    comparison = Comparison(MBP10)
    found = comparison.run(*pair)
    assert (comparison.equal, found.record, found.fields) == (end, end, ())
    there, not_there = (found.ours, found.theirs)[:: 1 if ours_is_longer else -1]
    assert there["sequence"].tolist() == [end]
    assert len(not_there) == 0


def test_fields_that_may_differ(records):
    theirs = records.copy()
    theirs["ts_in_delta"] = -1
    assert Comparison(MBP10, ["ts_in_delta"]).run([records], [theirs]) is None
    theirs["flags"][7] = 1
    found = Comparison(MBP10, ["ts_in_delta"]).run([records], [theirs])
    assert (found.record, found.fields) == (7, ("flags",))
    assert Comparison(MBP10, ["ts_in_delta", "flags"]).run([records], [theirs]) is None


def test_streams_of_which_every_field_is_ignored_still_end_together(records):
    theirs = records.copy()
    theirs["flags"] = 1
    assert Comparison(MBP10, MBP10.names).run([records], [theirs]) is None
    assert Comparison(MBP10, MBP10.names).run([records], [theirs[:60]]).record == 60
