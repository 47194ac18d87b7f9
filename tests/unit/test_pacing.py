import numpy as np
import pytest

from mdtool.core.records import index_timestamps
from mdtool.engine.pacing import Pacer, paced
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch

MS = 1_000_000
S = 1000 * MS


class Clock:
    """A clock that sleeping moves on, later than asked by `late_ns`, as a machine's does."""

    def __init__(self, late_ns: int = 0) -> None:
        self.now_ns = 77 * S
        self.sleeps: list[float] = []
        self._late_ns = late_ns

    def read(self) -> int:
        return self.now_ns

    def sleep(self, duration_s: float) -> None:
        self.sleeps.append(duration_s)
        self.now_ns += round(duration_s * S) + self._late_ns


def at(*times_ns: int) -> np.ndarray:
    records = streams.mbo(len(times_ns))
    records["ts_recv"] = [streams.START + time_ns for time_ns in times_ns]
    return records


def times_of(part):
    return index_timestamps(part.records)


def run(arrays, speed, clock, work_ns=0):
    """Return (ns since the first one was due, records) of every batch."""
    batches = []
    pace = Pacer(speed)
    for part in paced(map(batch, arrays), times_of, pace, clock.read, clock.sleep):
        batches.append((clock.now_ns - 77 * S, len(part)))
        clock.now_ns += work_ns
    return batches


def test_records_come_at_their_own_distances():
    assert run([at(0, 10 * MS, 10 * MS, 35 * MS)], 1, Clock()) == [
        (0, 1),
        (10 * MS, 2),
        (35 * MS, 1),
    ]


@pytest.mark.parametrize("speed", [0.5, 3.0, 10.0, 0.1])
def test_a_speed_divides_every_distance(speed):
    batches = run([at(0, 30 * MS, 70 * MS)], speed, Clock())
    assert [n for _, n in batches] == [1, 1, 1]
    assert [time for time, _ in batches] == pytest.approx([0, 30 * MS / speed, 70 * MS / speed])


def test_flat_out_everything_comes_at_once_and_nothing_sleeps():
    clock = Clock()
    arrays = [at(0, S, 2 * S), at(3 * S)]
    assert run(arrays, 0, clock) == [(0, 3), (0, 1)]
    assert clock.sleeps == []


def test_a_long_wait_is_many_sleeps_for_a_signal_may_come_just_before_one():
    clock = Clock()
    assert run([at(0, 3600 * S + MS)], 1, clock) == [(0, 1), (3600 * S + MS, 1)]
    assert max(clock.sleeps) <= 1
    assert sum(clock.sleeps) == pytest.approx(3600.001)


def test_distances_reach_across_arrays():
    assert run([at(0), at(20 * MS), at(20 * MS, 50 * MS)], 1, Clock()) == [
        (0, 1),
        (20 * MS, 1),
        (20 * MS, 1),
        (50 * MS, 1),
    ]


def test_late_sleeps_do_not_add_up():
    clock = Clock(late_ns=MS)
    gaps = 2000
    batches = run([at(*(i * 20 * MS for i in range(gaps)))], 1, clock)
    late = [time - i * 20 * MS for i, (time, _) in enumerate(batches)]
    assert len(batches) == gaps
    assert max(late) <= MS
    assert np.mean(late) < 2 * MS


def test_work_between_records_does_not_shift_those_that_follow():
    batches = run([at(*(i * 20 * MS for i in range(100)))], 1, Clock(), work_ns=7 * MS)
    assert [time for time, _ in batches] == [i * 20 * MS for i in range(100)]


def test_what_became_due_while_others_were_written_is_one_batch():
    assert run([at(0, 10 * MS, 20 * MS, 29 * MS, 50 * MS)], 1, Clock(), work_ns=30 * MS) == [
        (0, 1),
        (30 * MS, 3),
        (60 * MS, 1),
    ]


def test_a_thousand_due_at_once_are_one_batch():
    assert run([at(0, *(MS + i for i in range(1000)), 5 * MS)], 1, Clock(late_ns=MS)) == [
        (0, 1),
        (2 * MS, 1000),
        (6 * MS, 1),
    ]


def test_time_that_goes_back_holds_nothing_up():
    assert run([at(10 * MS, 5 * MS, 20 * MS, 0)], 1, Clock()) == [(0, 2), (10 * MS, 2)]


def test_records_without_a_time_come_with_those_before_them():
    records = at(0, 10 * MS, 20 * MS)
    records["ts_recv"][1] = 2**64 - 1
    assert run([records], 1, Clock()) == [(0, 2), (20 * MS, 1)]


def test_a_stream_may_begin_with_records_without_a_time():
    records = at(0, 0, 20 * MS)
    records["ts_recv"][0] = 2**64 - 1
    nothing = at(0)
    nothing["ts_recv"] = 2**64 - 1
    assert run([nothing, records], 1, Clock()) == [(0, 1), (0, 2), (20 * MS, 1)]


def test_a_pacer_says_how_long_to_wait():
    pacer = Pacer(2)
    times = index_timestamps(at(0, 10 * MS))
    assert pacer.due(times, 100) == 1
    assert pacer.wait_ns(int(times[1]), 100) == 5 * MS
    assert pacer.wait_ns(int(times[1]), 100 + 2 * MS) == 3 * MS
    assert pacer.wait_ns(int(times[1]), 100 + 8 * MS) == 0
    assert pacer.due(times[1:], 99 + 5 * MS) == 0
    assert pacer.due(times[1:], 100 + 5 * MS) == 1


@pytest.mark.parametrize("speed", [0.3, 1 / 3, 7.7, 1e-3, 12345.678])
def test_after_the_wait_that_was_told_a_record_is_due(speed):
    pacer = Pacer(speed)
    times = index_timestamps(at(0, *np.random.default_rng(2).integers(1, S, 50).tolist()))
    pacer.due(times[:1], 5)
    for i in range(1, len(times)):
        wait_ns = pacer.wait_ns(int(times[i]), 5)
        assert pacer.due(times[i : i + 1], 5 + wait_ns) == 1
        assert pacer.due(times[i : i + 1], 5 + wait_ns - 1) == 0


def test_a_start_of_one_s_own_takes_the_place_of_the_first_record():
    pacer = Pacer(2)
    times = index_timestamps(at(0, 4 * S))
    pacer.start(streams.START + 2 * S, 0)
    assert pacer.due(times, 0) == 1
    assert pacer.wait_ns(int(times[1]), 0) == S
    assert pacer.due(times, S) == 2


@pytest.mark.parametrize(("speed", "reached"), [(1, 3 * S), (0.5, 1.5 * S), (10, 30 * S)])
def test_what_is_reached_moves_on_between_records(speed, reached):
    pacer = Pacer(speed)
    assert pacer.reached_ns(0) is None
    assert pacer.due(index_timestamps(at(0)), 77) == 1
    assert pacer.reached_ns(77 + 3 * S) == streams.START + reached


def test_flat_out_nothing_is_a_limit():
    pacer = Pacer(0)
    assert pacer.due(index_timestamps(at(0)), 0) == 1
    assert pacer.reached_ns(0) is None


def test_a_speed_however_low_gives_a_time_that_can_be_slept():
    pacer = Pacer(1e-300)
    times = index_timestamps(at(0, 1))
    assert pacer.due(times, 0) == 1
    assert 0 < pacer.wait_ns(int(times[1]), 0) < 2**63
