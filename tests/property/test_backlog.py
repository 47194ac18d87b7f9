"""Whatever happens on the way, each frame is sent until it is committed, and in order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mdtool.services.send.backlog import Backlog
from mdtool.wire.tick_encoder import EncodedFrames


def frames(first, count):
    """Frames whose bytes tell their sequence: each is as many digits as it takes, and a stop."""
    texts = [b"%d." % sequence for sequence in range(first, first + count)]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return EncodedFrames(memoryview(b"".join(texts)), ends)


def sequences(data):
    return [int(text) for text in bytes(data).split(b".")[:-1]]


class Stream(RuleBasedStateMachine):
    """A backlog, and a server that takes what comes and commits it when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog(max_bytes=1_000)
        self.appended = 0
        self.received = 0
        self.committed = 0

    @rule(count=st.integers(0, 50))
    def append(self, count):
        self.backlog.append(frames(self.appended, count))
        self.appended += count

    @rule()
    def send(self):
        sent = sequences(self.backlog.take())
        assert sent == list(range(self.received, self.received + len(sent)))
        self.received += len(sent)

    @precondition(lambda self: self.received > self.committed)
    @rule(data=st.data())
    def commit(self, data):
        self.committed = data.draw(st.integers(self.committed, self.received))
        self.backlog.commit(self.committed)

    @rule(data=st.data())
    def reconnect(self, data):
        """What was received and not committed may be lost, or committed without a word."""
        self.committed = data.draw(st.integers(self.committed, self.received))
        self.received = self.committed
        assert self.backlog.resume(self.committed) == 0

    @invariant()
    def counts_agree(self):
        assert self.backlog.appended == self.appended
        assert self.backlog.sent == self.received
        assert self.backlog.committed == self.committed

    @invariant()
    def what_is_kept_is_bounded_by_what_is_uncommitted(self):
        if self.committed == self.appended:
            assert self.backlog.kept_bytes == 0
        assert self.backlog.kept_bytes <= sum(
            len(b"%d." % sequence) for sequence in range(max(0, self.committed - 50), self.appended)
        )


TestStream = Stream.TestCase


@given(known=st.integers(0, 100), runs=st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_a_stream_that_an_earlier_run_began_is_not_sent_from_its_start(known, runs):
    backlog = Backlog(max_bytes=1_000)
    backlog.resume(known)
    first = 0
    for count in runs:
        backlog.append(frames(first, count))
        first += count
    assert sequences(backlog.take()) == list(range(known, first))
    assert backlog.sent == first


@given(committed=st.integers(1, 20), remembered=st.integers(0, 19), extra=st.integers(0, 10))
def test_a_server_that_lost_its_memory_gets_all_that_is_left(committed, remembered, extra):
    remembered = min(remembered, committed - 1)
    backlog = Backlog(max_bytes=1_000)
    backlog.append(frames(0, committed + extra))
    backlog.take()
    backlog.commit(committed)
    assert backlog.resume(remembered) == committed - remembered
    rest = list(range(committed, committed + extra))
    assert sequences(backlog.take()) == rest
    # The server now counts from what it remembers.
    backlog.commit(remembered + extra)
    assert backlog.kept_bytes == 0
    assert backlog.committed == committed + extra


def test_a_full_backlog_says_so_until_enough_is_committed():
    backlog = Backlog(max_bytes=20)
    backlog.append(frames(0, 10))
    assert backlog.is_full
    backlog.take()
    backlog.commit(10)
    assert not backlog.is_full
