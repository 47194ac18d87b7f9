"""The port through which accepted ticks reach what aggregates them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from mdtool.core.trades import Frames

CommitListener = Callable[[str, int], None]
"""Called with a stream's id and the sequence before which all of it is committed."""


class Bus(Protocol):
    """Hands streams of ticks over, each frame once, by its position in its stream.

    A bus is an async context manager. Inside it, what was published is kept, and sent again after
    every loss of the connection, until it is committed at the other end; what is uncommitted when
    the block ends is dropped. The block is cancelled, and PeerError raised from it, when the other
    end refuses for good what it was sent.

    The order within a stream is kept, the order between streams is not.
    """

    @property
    def peer(self) -> str:
        """What ticks are handed to, for people: `aggregator 127.0.0.1:50051`."""
        ...

    async def __aenter__(self) -> Self:
        """Start connecting, without waiting for it."""
        ...

    async def __aexit__(self, *exc_info: object) -> bool | None:
        """Drop what is not committed, and disconnect."""
        ...

    def subscribe(self, listener: CommitListener) -> None:
        """Have `listener` called at each commit, in the event loop's thread."""
        ...

    async def position(self, stream_id: str) -> int:
        """Return the sequence that the other end wants next of a stream; 0 when it knows none.

        Waits for as long as the other end is away. Meant for streams of which nothing that was
        published here is uncommitted.

        Raises
        ------
        PeerError
            When the other end refuses the question.
        """
        ...

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Take the frames of a stream from `first_sequence` on.

        Never waits: a caller bounds what the bus keeps by what it has published and not yet seen
        committed. Runs of one stream that are published while an earlier one is being sent are
        sent as one batch.

        Parameters
        ----------
        stream_id : str
            The stream; its frames are published without a gap.
        first_sequence : int
            The position of the run's first frame.
        frames : Frames
            The run; its symbols are indices into the table that the bus was made with.
        """
        ...
