"""Pauses, steps and speeds of a replay, on a clock that a test moves on."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.cli.live.playback import FLAT_OUT, SPEEDS, Playback

S = 10**9
FIRST = 1_700_000_000 * S


def at(*seconds: float) -> np.ndarray:
    return np.array([FIRST + round(second * S) for second in seconds], np.int64)


def started(speed: float = 1.0) -> Playback:
    """One whose first record, at 0 s, was played at the clock's 0 s."""
    playback = Playback(speed)
    assert playback.due(at(0), 0) == 1
    playback.played(FIRST)
    return playback


def test_records_are_due_at_their_own_distances():
    playback = started()
    assert playback.due(at(1, 2, 3), 2 * S) == 2
    assert playback.wait_s(FIRST + 3 * S, 2 * S) == pytest.approx(1)


def test_nothing_is_due_while_it_pauses_and_time_stands_still():
    playback = started()
    assert playback.due(at(10), 3 * S) == 0
    playback.toggle_pause(4 * S)
    assert playback.due(at(10), 60 * S) == 0
    assert playback.wait_s(FIRST + 10 * S, 60 * S) is None
    assert playback.position_ns(60 * S) == FIRST + 4 * S


def test_it_continues_from_where_it_paused():
    playback = started()
    assert playback.due(at(10), 3 * S) == 0
    playback.toggle_pause(4 * S)
    playback.toggle_pause(100 * S)
    assert playback.due(at(10), 105 * S) == 0
    assert playback.due(at(10), 106 * S) == 1


def test_a_step_pauses_and_its_record_moves_time_on():
    playback = started()
    playback.step(1 * S)
    assert playback.is_paused
    assert playback.steps == 1
    playback.played(FIRST + 50 * S)
    playback.stepped()
    assert playback.steps == 0
    assert playback.position_ns(2 * S) == FIRST + 50 * S
    playback.toggle_pause(2 * S)
    assert playback.due(at(51), 2 * S) == 0
    assert playback.due(at(51), 3 * S) == 1


def test_steps_add_up_and_going_on_forgets_them():
    playback = started()
    playback.step(S)
    playback.step(S)
    assert playback.steps == 2
    playback.toggle_pause(S)
    assert (playback.steps, playback.is_paused) == (0, False)


@pytest.mark.parametrize(("speed", "at_5_s"), [(2.0, 9), (0.5, 6), (1.0, 7)])
def test_time_does_not_jump_when_the_speed_changes(speed, at_5_s):
    playback = started()
    assert playback.due(at(100), 3 * S) == 0
    playback.set_speed(speed, 3 * S)
    assert playback.due(at(100), 3 * S) == 0
    assert playback.position_ns(3 * S) == FIRST + 3 * S
    assert playback.position_ns(7 * S) == FIRST + round((3 + 4 * speed) * S)


def test_what_it_could_not_keep_up_with_is_not_made_up_for_at_another_speed():
    playback = started(10_000.0)
    assert playback.due(at(*range(1, 9)), 10 * S) == 8
    playback.played(FIRST + 8 * S)
    playback.set_speed(1.0, 10 * S)
    assert playback.due(at(9, 10), 11 * S) == 1


def test_flat_out_everything_is_due_and_time_is_the_last_record_s():
    playback = Playback(FLAT_OUT)
    assert playback.position_ns(5) is None
    assert playback.due(at(0, 1, 9999), 0) == 3
    playback.played(FIRST + 9999 * S)
    assert playback.position_ns(10 * S) == FIRST + 9999 * S


def test_a_pace_taken_up_after_flat_out_begins_there():
    playback = Playback(FLAT_OUT)
    assert playback.due(at(0, 60), 0) == 2
    playback.played(FIRST + 60 * S)
    playback.set_speed(1.0, 5 * S)
    assert playback.due(at(61), 5 * S) == 0
    assert playback.due(at(61), 6 * S) == 1


def test_faster_and_slower_go_through_the_speeds_and_stay_at_the_ends():
    playback = Playback(SPEEDS[0])
    playback.slower(0)
    met = [playback.speed]
    for _ in range(len(SPEEDS) + 2):
        playback.faster(0)
        met.append(playback.speed)
    assert met == [*SPEEDS, FLAT_OUT, FLAT_OUT, FLAT_OUT]
    playback.slower(0)
    assert playback.speed == SPEEDS[-1]


def test_a_speed_of_one_s_own_goes_to_the_next_on_either_side():
    for change, speed in (("faster", 5.0), ("slower", 2.0)):
        playback = Playback(3.0)
        getattr(playback, change)(0)
        assert playback.speed == speed


def test_a_pause_stays_one_when_the_speed_changes():
    playback = started()
    playback.toggle_pause(S)
    playback.faster(S)
    assert playback.is_paused
    assert playback.due(at(1), 100 * S) == 0


def test_what_is_before_the_start_comes_at_once():
    playback = Playback(1.0, from_ns=FIRST + 100 * S)
    assert playback.due(at(0, 50, 99), 0) == 3
    assert playback.due(at(99.5, 101, 102), 0) == 1
    assert playback.due(at(101, 102), 0) == 0
    assert playback.position_ns(0) == FIRST + 100 * S
    assert playback.due(at(101, 102), S) == 1


def test_records_without_a_time_do_not_move_it():
    playback = started()
    playback.played(-1)
    assert playback.position_ns(0) == FIRST
