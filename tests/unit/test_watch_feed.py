"""The connection of a watch: lost, it is opened again, less and less often up to a cap."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from mdtool.cli.watch import feed as watch_feed
from mdtool.cli.watch.feed import LineFeed

FIRST_S, LONGEST_S = 0.001, 0.008
JITTER = 0.25


class Receiver:
    """Remembers how long was waited, and closes the feed after some losses."""

    def __init__(self, feed: LineFeed, losses: int) -> None:
        self.delays: list[float] = []
        self.attempts: list[int] = []
        self.lines: list[bytes] = []
        self._feed = feed
        self._losses = losses

    def connected(self) -> None:
        pass

    def received(self, lines: list[bytes]) -> None:
        self.lines += lines

    def lost(self, _reason: str, delay_s: float, attempts: int) -> None:
        self.delays.append(delay_s)
        self.attempts.append(attempts)
        if len(self.delays) == self._losses:
            self._feed.close()


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(watch_feed, "FIRST_DELAY_S", FIRST_S)
    monkeypatch.setattr(watch_feed, "LONGEST_DELAY_S", LONGEST_S)


@contextlib.contextmanager
def served(answer):
    """A server that answers each connection, by its number, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        number = 0
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(answer(number))
                number += 1

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def doubled(n: int) -> list[float]:
    return [min(FIRST_S * 2**number, LONGEST_S) for number in range(n)]


def test_what_closes_at_once_is_tried_less_and_less_often_up_to_a_cap():
    with served(lambda _number: b"") as port:
        feed = LineFeed("127.0.0.1", port)
        receiver = Receiver(feed, losses=7)
        feed.run(receiver)
    assert receiver.delays == pytest.approx(doubled(7), rel=JITTER)
    assert receiver.attempts == [1, 2, 3, 4, 5, 6, 7]


def test_a_port_that_nobody_listens_on_too():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, so that nobody else takes it
        feed = LineFeed("127.0.0.1", holder.getsockname()[1])
        receiver = Receiver(feed, losses=5)
        feed.run(receiver)
    assert receiver.delays == pytest.approx(doubled(5), rel=JITTER)


def test_a_line_that_comes_begins_anew():
    with served(lambda number: b"a line\n" if number == 3 else b"") as port:
        feed = LineFeed("127.0.0.1", port)
        receiver = Receiver(feed, losses=6)
        feed.run(receiver)
    assert receiver.lines == [b"a line"]
    assert receiver.delays == pytest.approx([*doubled(3), *doubled(3)], rel=JITTER)
    assert receiver.attempts == [1, 2, 3, 1, 2, 3]
