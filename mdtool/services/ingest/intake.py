"""The streams of the ingest server: what was taken, and what of it is committed."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from mdtool.adapters.bus.port import Bus
from mdtool.core import tracing
from mdtool.core.errors import PeerError
from mdtool.core.trades import Frames

_MAX_PRINCIPALS: Final = 100_000
"""Streams whose principals are known; beyond it, the oldest that is not open is forgotten."""


class Owner(Protocol):
    """The one connection that sends a stream."""

    def committed(self, next_sequence: int) -> None:
        """Report that everything before `next_sequence` is committed."""
        ...

    def replaced(self) -> None:
        """Close: another connection has opened the stream."""
        ...


class Stream:
    """One stream's frames: how many were taken, and how many of those are committed.

    Attributes
    ----------
    stream_id : str
        Its name on the bus.
    taken : int
        The sequence of the next frame.
    committed : int
        Everything before it is committed.
    owner : Owner or None
        The connection that sends it, where that is a single one.
    """

    __slots__ = ("_waiting", "committed", "opening", "owner", "stream_id", "taken")

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.taken = 0
        self.committed = 0
        self.owner: Owner | None = None
        self.opening = asyncio.Lock()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_settled(self) -> bool:
        """Whether everything taken is committed."""
        return self.committed == self.taken

    async def settled(self) -> None:
        """Wait until everything taken so far is committed."""
        if not self.is_settled:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((self.taken, future))
            await future

    def commit(self, next_sequence: int) -> int:
        """Commit everything before `next_sequence`; return how many frames that are."""
        frames = next_sequence - self.committed
        if frames <= 0:
            return 0
        self.committed = next_sequence
        while self._waiting and self._waiting[0][0] <= next_sequence:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
        if self.owner is not None:
            self.owner.committed(next_sequence)
        return frames


class Intake:
    """The streams of all connections on their way to the bus.

    Connections that do not name a stream share one, so that many slow clients make one batch.

    Parameters
    ----------
    bus : Bus
        Where ticks go.
    max_uncommitted : int
        How many frames may await their commit before connections are paused. Beyond it, each
        connection takes at most one small read.

    Attributes
    ----------
    shared : Stream
        The stream of connections that do not name one.
    uncommitted : int
        Frames that await their commit.
    taken, committed : int
        Frames of all streams that this server has taken, and that are committed.
    """

    def __init__(self, bus: Bus, max_uncommitted: int) -> None:
        self.uncommitted = self.taken = self.committed = 0
        self.shared = Stream(f"serve-tcp-{uuid.uuid4().hex}")
        self._bus = bus
        self._max_uncommitted = max_uncommitted
        self._streams = {self.shared.stream_id: self.shared}
        self._principals: dict[str, str] = {}
        """By stream, also of those that are not open now."""
        self._waiting_for_room: list[Callable[[], None]] = []
        bus.subscribe(self._committed)

    @property
    def has_room(self) -> bool:
        """Whether more may be taken."""
        return self.uncommitted < self._max_uncommitted

    def when_room(self, call: Callable[[], None]) -> None:
        """Call `call` once, when half of the room is free again."""
        self._waiting_for_room.append(call)

    def publish(self, stream: Stream, frames: Frames) -> None:
        """Publish the next frames of a stream on the bus, from its sequence `taken` on."""
        tracing.ingested(stream.stream_id, stream.taken, frames)
        self._bus.publish(stream.stream_id, stream.taken, frames)
        stream.taken += frames.count
        self.taken += frames.count
        self.uncommitted += frames.count

    async def open(self, stream_id: str, owner: Owner, principal: str = "") -> Stream:
        """Return the stream of that name, sent by `owner` alone from now on.

        Everything that was taken of the stream is committed by then: a client resumes from its
        `taken`.

        Parameters
        ----------
        stream_id : str
        owner : Owner
        principal : str, optional
            Whose connection that is; the stream is of this principal from now on.

        Raises
        ------
        PeerError
            When the stream is another principal's, whom it is left to, or the bus refuses the
            request for its position.
        """
        await self._claim(stream_id, principal)
        stream = self._streams.setdefault(stream_id, Stream(stream_id))
        before, stream.owner = stream.owner, owner
        if before is not None:
            before.replaced()
        async with stream.opening:
            await stream.settled()
            # Another server may have taken more of a stream that this one knows.
            position = await self._bus.position(stream_id)
            if position > stream.taken:
                stream.taken = stream.committed = position
        return stream

    async def _claim(self, stream_id: str, principal: str) -> None:
        """Raise PeerError where a stream is another principal's."""
        if not principal:
            return
        if stream_id not in self._principals:
            owner = await self._bus.own(stream_id, principal)
            self._principals.setdefault(stream_id, owner)
        if self._principals[stream_id] != principal:
            raise PeerError(f"stream {stream_id!r}: belongs to another principal; use another id")
        if len(self._principals) > _MAX_PRINCIPALS:
            idle = (known for known in self._principals if known not in self._streams)
            del self._principals[next(idle, stream_id)]

    def leave(self, stream_id: str, owner: Owner) -> None:
        """Release the stream from its owner, and drop it once it is settled."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.owner is owner:
            stream.owner = None
            self._forget_if_idle(stream)

    async def settled(self) -> None:
        """Wait until everything taken so far is committed."""
        for stream in list(self._streams.values()):
            await stream.settled()

    def _committed(self, stream_id: str, next_sequence: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        committed = stream.commit(min(next_sequence, stream.taken))
        self.committed += committed
        self.uncommitted -= committed
        self._forget_if_idle(stream)
        if self._waiting_for_room and self.uncommitted <= self._max_uncommitted // 2:
            waiting, self._waiting_for_room = self._waiting_for_room, []
            for call in waiting:
                call()

    def _forget_if_idle(self, stream: Stream) -> None:
        if stream is not self.shared and stream.owner is None and stream.is_settled:
            self._streams.pop(stream.stream_id, None)
