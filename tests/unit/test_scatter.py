"""One write to many sockets, over real ones."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import pytest

from mdtool.adapters.scatter_kernel import scatter


@pytest.fixture
def pairs():
    pairs = [socket.socketpair() for _ in range(4)]
    for end, _ in pairs:
        end.setblocking(False)
    yield pairs
    for end, other in pairs:
        end.close()
        other.close()


def _scatter(descriptors: list[int], starts: list[bytes], rest: bytes) -> list[int]:
    written = np.empty(len(descriptors), np.int64)
    scatter(
        np.array(descriptors, np.int64),
        np.frombuffer(b"".join(starts), np.uint8),
        np.cumsum([len(start) for start in starts]),
        np.frombuffer(rest, np.uint8),
        written,
    )
    return written.tolist()


def test_each_gets_its_own_start_and_the_common_rest(pairs):
    starts = [b"one", b"", b"two", b"three"]
    written = _scatter([end.fileno() for end, _ in pairs], starts, b" and the rest")
    for start, (_, other) in zip(starts, pairs, strict=True):
        assert other.recv(100) == start + b" and the rest"
    assert written == [len(start) + 13 for start in starts]


def test_what_is_full_broken_or_passed_over_takes_nothing(pairs):
    (full, _), (broken, other), _, (good, reader) = pairs
    with contextlib.suppress(BlockingIOError):
        while True:
            full.send(bytes(1 << 16))
    other.close()
    descriptors = [full.fileno(), broken.fileno(), -1, good.fileno()]
    assert _scatter(descriptors, [b"a"] * 4, b"b") == [-1, -1, -1, 2]
    assert reader.recv(100) == b"ab"


def test_a_socket_may_take_a_part(pairs):
    end, other = pairs[0]
    big = bytes(1 << 22)
    (written,) = _scatter([end.fileno()], [b"start"], big)
    assert 0 < written < len(big)
    other.setblocking(False)
    received = 0
    while received < written:
        received += len(other.recv(1 << 20))
    assert received == written


def test_there_may_be_nobody():
    assert _scatter([], [], b"rest") == []
