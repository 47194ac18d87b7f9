"""The port of buses, by which accepted ticks reach the aggregators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

from mdtool.core.trades import Frames

CommitListener = Callable[[str, int], None]
"""Called with a stream's id and the sequence before which all of it is committed."""


class Bus(Protocol):
    """Delivers streams of frames, each frame once, by its position in its stream.

    A bus is an async context manager. Within its block, published frames are sent again after every
    loss of the connection, until they are committed; uncommitted frames are dropped at the end.
    When the peer refuses frames for good, the block is cancelled and raises PeerError.

    The order within a stream is kept, the order between streams is not.
    """

    @property
    def peer(self) -> str:
        """The peer, for messages: `aggregator 127.0.0.1:50051`."""
        ...

    async def __aenter__(self) -> Self:
        """Start connecting, without waiting for it."""
        ...

    async def __aexit__(self, *exc_info: object) -> bool | None:
        """Drop uncommitted frames, and disconnect."""
        ...

    def subscribe(self, listener: CommitListener) -> None:
        """Call `listener` at each commit, in the event loop's thread."""
        ...

    async def position(self, stream_id: str) -> int:
        """Return the next sequence that the peer expects of a stream; 0 for an unknown stream.

        Waits while the peer is unavailable. Meant for streams of which nothing that was published
        here is uncommitted.

        Raises
        ------
        PeerError
            When the peer refuses the request.
        """
        ...

    async def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is.

        Waits while the peer is unavailable.

        Raises
        ------
        PeerError
            When the peer refuses the request.
        """
        ...

    def publish(self, stream_id: str, first_sequence: int, frames: Frames) -> None:
        """Take the frames of a stream from `first_sequence` on.

        Never waits: the caller bounds what the bus holds, by what it has published and not yet seen
        committed. Runs of a stream that are published while an earlier one is being sent make one
        batch.

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
