"""What waits for a client: the latest of each state, the last events, and bounded messages."""

from __future__ import annotations

from mdtool.services.gateway.backlog import (
    MAX_EVENTS,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGES,
    MAX_STATE_BYTES,
    Backlog,
    Event,
)


class Owner:
    """A subscription."""

    def missed(self, symbol: str, count: int) -> bytes:
        return f"missed {count} of {symbol}".encode()


A, B = Owner(), Owner()


def test_the_latest_of_a_state_takes_the_place_of_the_one_before():
    backlog = Backlog()
    assert [
        backlog.keep(A, "AAPL", b"1"),
        backlog.keep(A, "MSFT", b"2"),
        backlog.keep(A, "AAPL", b"3"),
        backlog.keep(B, "AAPL", b"4"),
    ] == [False, False, True, False]
    assert backlog.take() == [b"3", b"2", b"4"]
    assert not backlog.take()


def test_every_message_is_taken_in_its_place():
    backlog = Backlog()
    backlog.add(b"1")
    backlog.keep(A, None, b"2")
    backlog.add(b"1")
    backlog.keep(A, None, b"3")
    assert backlog.take() == [b"1", b"3", b"1"]


def test_messages_are_bounded_in_number_until_they_are_taken():
    backlog = Backlog()
    for _ in range(2):
        assert all(backlog.add(b"x") for _ in range(MAX_MESSAGES))
        assert not backlog.add(b"x")
        assert not backlog.keep(A, None, b"states do not count as messages")
        assert len(backlog.take()) == MAX_MESSAGES + 1


def test_messages_are_bounded_in_bytes():
    backlog = Backlog()
    assert backlog.add(bytes(MAX_MESSAGE_BYTES))
    assert not backlog.add(b"x")
    backlog.clear()
    assert backlog.add(b"x")


def test_of_the_events_of_an_owner_the_oldest_are_dropped_and_reported_first():
    backlog = Backlog()
    backlog.keep(B, Event("AAPL"), b"of another owner")
    kept = [
        backlog.keep(A, Event("MSFT" if number == 1 else "AAPL"), b"%d" % number)
        for number in range(MAX_EVENTS + 3)
    ]
    assert kept == [0] * MAX_EVENTS + [1] * 3
    frames = backlog.take()
    assert sorted(frames[:2]) == [b"missed 1 of MSFT", b"missed 2 of AAPL"]
    assert frames[2:] == [b"of another owner", *(b"%d" % n for n in range(3, MAX_EVENTS + 3))]
    backlog.keep(A, Event("AAPL"), b"next")
    assert backlog.take() == [b"next"]


def test_a_dropped_report_of_missed_events_is_counted_as_what_it_stands_for():
    backlog = Backlog()
    backlog.keep(A, Event("AAPL", 12), b"missed 12 of AAPL")
    backlog.keep(A, Event("MSFT", None), b"missed some of MSFT")
    for number in range(MAX_EVENTS + 1):
        backlog.keep(A, Event("AAPL"), b"%d" % number)
    assert backlog.take()[:2] == [b"missed 13 of AAPL", b"missed None of MSFT"]


def test_an_owner_and_all_that_is_its_own_can_be_forgotten():
    backlog = Backlog()
    backlog.keep(A, 1, b"1")
    backlog.add(b"2")
    backlog.keep(B, 1, b"3")
    backlog.keep(A, 2, b"4")
    for _ in range(MAX_EVENTS + 1):
        backlog.keep(A, Event("AAPL"), b"5")
    backlog.forget(A)
    backlog.forget(Owner())
    assert backlog.take() == [b"2", b"3"]


def test_states_and_events_that_are_too_large_together_are_said_to_be():
    backlog = Backlog()
    half = bytes(MAX_STATE_BYTES // 2)
    for _ in range(3):
        backlog.keep(A, 1, half)
    backlog.keep(A, 2, half)
    assert not backlog.is_too_large
    backlog.keep(B, Event("AAPL"), b"x")
    assert backlog.is_too_large
    backlog.forget(B)
    assert not backlog.is_too_large
    backlog.keep(A, 2, half + b"x")
    assert backlog.is_too_large
    backlog.take()
    assert not backlog.is_too_large
