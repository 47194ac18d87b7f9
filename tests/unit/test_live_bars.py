"""Live bars: long histories, late ticks across them, memory that is given back, refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mdtool.core.errors import UsageError
from mdtool.engine.bars import BAR
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.saved_state import SAVED_BAR
from tests.reference import bars as reference

_ANSWERS = """
import numpy as np
from mdtool.engine import live_bar_kernel as kernels
from mdtool.engine.live_bars import LiveBars

def loaded():
    return [len(kernel.signatures) for kernel in (kernels.update, *answering)]

answering = kernels.open_bars, kernels.closed, kernels.changed
bars = LiveBars((10, 50))
before = loaded()
bars.update([0, 0], [1, 2], [1, 1], [1000, 1010])
for interval in (10, 50):
    assert len(bars.history(0, interval, 5, 2000)) == {10: 2, 50: 1}[interval]
    assert len(bars.changed_since(0, np.zeros(1, np.uint32), interval)) == 1
print(before, loaded())
"""


def test_all_kernels_are_loaded_at_the_start():
    command = [sys.executable, "-c", _ANSWERS]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == f"{[1] * 4} {[1] * 4}\n", done.stderr


def test_a_long_stream_with_late_ticks_keeps_the_newest_bars():
    rng = np.random.default_rng(7)
    count, keep, lateness = 30_000, 50, 300
    symbol = rng.integers(0, 3, count).astype("u4")
    price, volume = rng.integers(1, 1000, (2, count))
    ts = np.arange(count) * 2 + rng.integers(-400, 400, count) + 1000
    bars = LiveBars((10, 50), keep=keep, lateness_ns=lateness)
    for begin in range(0, count, 777):
        part = slice(begin, begin + 777)
        bars.update(symbol[part], price[part], volume[part], ts[part])

    ticks = [reference.Trade(*row) for row in np.stack([symbol, price, volume, ts], 1).tolist()]
    expected, late = reference.live_bars(ticks, (10, 50), lateness)
    assert bars.late == late > 0
    for (series, interval), newest_first in expected.items():
        got = [reference.Bar(*row) for row in bars.history(series, interval, 10**6).tolist()]
        assert got == newest_first[: keep + 1]


def test_memory_stops_growing_once_histories_are_full():
    bars = LiveBars((1, 10), keep=40)

    def feed(begin: int, end: int) -> int:
        ts = np.arange(begin, end)
        bars.update(np.zeros(len(ts), "u4"), ts + 1, ts + 1, ts)
        return bars._pool.nbytes

    full = feed(0, 5_000)
    assert feed(5_000, 50_000) == full
    assert len(bars.history(0, 1, 10**6)) == 41


def test_a_history_of_one_bar():
    bars = LiveBars((10,), keep=1)
    bars.update([0] * 5, [1, 2, 3, 4, 5], [1] * 5, [5, 15, 25, 35, 45])
    assert bars.history(0, 10, 9)["close"].tolist() == [5, 4]


def test_received_buffers_are_taken_as_they_are():
    bars = LiveBars((10,))
    symbol = np.frombuffer(np.array([0, 0], "<u4").tobytes(), "<u4")
    column = np.frombuffer(np.array([3, 4], "<i8").tobytes(), "<i8")
    bars.update(symbol, column, column, column)
    assert bars.history(0, 10, 1).tolist() == [(0, 0, 3, 4, 3, 4, 7, 2)]


def test_a_symbol_that_never_traded_has_no_bars():
    bars = LiveBars((10,))
    bars.update([7], [1], [1], [1])
    for symbol in (0, 6, 8, 10**6):
        history = bars.history(symbol, 10, 5)
        assert len(history) == 0
        assert history.dtype == BAR


def test_an_unknown_interval_is_rejected():
    with pytest.raises(UsageError, match="no bars of 2m: choose from 1s, 1m"):
        LiveBars((10**9, 60 * 10**9)).history(0, 120 * 10**9, 1)


def test_many_changed_bars_are_all_returned_as_far_as_they_are_held():
    bars = LiveBars((10, 100), keep=40)
    first = bars.step
    ts = np.arange(0, 10_000, 10)
    bars.update(np.tile([0, 1], 500), ts + 1, ts + 1, ts)
    symbols = np.array([1, 0, 7], "u4")
    for interval in (10, 100):
        told = bars.changed_since(first, symbols, interval)
        expected = [bars.history(symbol, interval, 100)[::-1] for symbol in (1, 0)]
        np.testing.assert_array_equal(told, np.concatenate(expected))
    assert len(bars.changed_since(bars.step, symbols, 10)) == 0


def test_changes_of_an_unknown_interval_are_rejected():
    with pytest.raises(UsageError, match="no bars of 2m"):
        LiveBars((10**9,)).changed_since(0, np.zeros(1, "u4"), 120 * 10**9)


@pytest.mark.parametrize(
    ("intervals", "keep", "lateness"),
    [((), 1, 0), ((0,), 1, 0), ((10,), 0, 0), ((10,), 1, -1), ((10, 25), 1, 0)],
)
def test_what_cannot_be_is_refused(intervals, keep, lateness):
    with pytest.raises(UsageError):
        LiveBars(intervals, keep, lateness)


def test_unsaved_bars_are_held_however_many_they_are():
    bars = LiveBars((10, 100), keep=2)
    bars.restore(np.empty(0, SAVED_BAR))
    step = bars.step
    for begin in (0, 40):
        numbers = np.arange(begin, begin + 40)
        bars.update(np.zeros(40, "u4"), numbers + 1, np.ones(40, "i8"), 10 * numbers)

    saved = bars.saved_since(step)

    of_10 = np.sort(saved["start_ns"][saved["interval_ns"] == 10])
    assert of_10.tolist() == [10 * number for number in range(80)]
    assert len(bars.history(0, 10, 1_000)) == 3
    assert not len(bars.saved_since(bars.step))


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_bar_that_was_saved_open_is_held_until_it_is_saved_closed(keep):
    bars = LiveBars((10,), keep=keep)
    bars.restore(np.empty(0, SAVED_BAR))
    bars.update([0], [1], [1], [0])
    step = bars.step
    (open_bar,) = bars.saved_since(0)
    assert open_bar["is_open"]
    bars.saved_since(step)

    # The first of these closes the bar that was saved, and does not change it.
    starts = 10 * np.arange(1, 10)
    bars.update(np.zeros(9, "u4"), starts + 1, np.ones(9, "i8"), starts)

    saved = np.sort(bars.saved_since(step), order="start_ns")
    assert saved["start_ns"].tolist() == [0, *starts.tolist()]
    assert saved["is_open"].tolist() == [0] * 9 + [1]
    assert saved["close"].tolist() == [1, *(starts + 1).tolist()]


def test_a_saved_bar_that_a_late_tick_changes_is_held_until_it_is_saved_again():
    bars = LiveBars((10,), keep=2, lateness_ns=15)
    bars.restore(np.empty(0, SAVED_BAR))
    bars.update(np.zeros(3, "u4"), [1, 2, 3], [1] * 3, [0, 10, 20])
    step = bars.step
    bars.saved_since(step)
    starts = 10 * np.arange(3, 12)
    bars.update(np.zeros(10, "u4"), [9] * 10, [1] * 10, [11, *starts])

    saved = np.sort(bars.saved_since(step), order="start_ns")
    assert saved["start_ns"].tolist() == [10, 20, *starts.tolist()]
    assert saved["close"].tolist() == [9, 3, *[9] * 9]


def test_bars_of_a_dropped_interval_are_not_restored():
    before, bars = LiveBars((10, 50)), LiveBars((10, 100))
    before.update(np.zeros(1, "u4"), [5], [1], [73])
    before.update(np.zeros(1, "u4"), [6], [1], [85])

    bars.restore(before.saved_since(0), late=7)

    assert [row[1:3] for row in bars.history(0, 10, 9).tolist()] == [(80, 6), (70, 5)]
    assert bars.late == 7
