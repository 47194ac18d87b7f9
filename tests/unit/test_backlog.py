"""What waits for a client: the latest of each state, every event, all of it bounded."""

from __future__ import annotations

from mdtool.services.gateway.backlog import MAX_EVENT_BYTES, MAX_EVENTS, MAX_STATE_BYTES, Backlog


def test_the_latest_of_a_state_takes_the_place_of_the_one_before():
    backlog = Backlog()
    assert [
        backlog.keep("a", "AAPL", b"1"),
        backlog.keep("a", "MSFT", b"2"),
        backlog.keep("a", "AAPL", b"3"),
        backlog.keep("b", "AAPL", b"4"),
    ] == [False, False, True, False]
    assert list(backlog.take()) == [b"3", b"2", b"4"]
    assert not backlog.take()


def test_every_event_is_told_in_its_place():
    backlog = Backlog()
    backlog.add(b"1")
    backlog.keep("a", None, b"2")
    backlog.add(b"1")
    backlog.keep("a", None, b"3")
    assert list(backlog.take()) == [b"1", b"3", b"1"]


def test_events_are_bounded_in_number_until_they_are_told():
    backlog = Backlog()
    for _ in range(2):
        assert all(backlog.add(b"x") for _ in range(MAX_EVENTS))
        assert not backlog.add(b"x")
        assert not backlog.keep("a", None, b"a state takes no room of theirs")
        assert len(backlog.take()) == MAX_EVENTS + 1


def test_events_are_bounded_in_bytes():
    backlog = Backlog()
    assert backlog.add(bytes(MAX_EVENT_BYTES))
    assert not backlog.add(b"x")
    backlog.clear()
    assert backlog.add(b"x")


def test_an_owner_and_all_its_states_can_be_forgotten():
    backlog = Backlog()
    backlog.keep("a", 1, b"1")
    backlog.add(b"2")
    backlog.keep("b", 1, b"3")
    backlog.keep("a", 2, b"4")
    backlog.forget("a")
    backlog.forget("nobody")
    assert list(backlog.take()) == [b"2", b"3"]


def test_states_that_are_too_large_are_said_to_be():
    backlog = Backlog()
    half = bytes(MAX_STATE_BYTES // 2)
    for _ in range(3):
        backlog.keep("a", 1, half)
    backlog.keep("a", 2, half)
    assert not backlog.is_too_large
    backlog.keep("b", 1, b"x")
    assert backlog.is_too_large
    backlog.forget("b")
    assert not backlog.is_too_large
    backlog.keep("a", 2, half + b"x")
    assert backlog.is_too_large
    backlog.take()
    assert not backlog.is_too_large
