"""The frames of a stream that the server may still need: not sent, or not committed yet."""

from __future__ import annotations

from collections import deque
from typing import Final

from mdtool.wire.tick_encoder import EncodedFrames

_WRITE_BYTES: Final = 1 << 20
"""The approximate size of one write to the connection."""


class Backlog:
    """Frames in the order of their sequence, those that were sent before those that were not.

    Sequences count from 0, the first frame of the source. A server that has lost its state counts
    lower; the backlog knows the difference.

    Parameters
    ----------
    max_bytes : int
        The size from which `is_full` is true.

    Attributes
    ----------
    appended : int
        The sequence after the last frame.
    committed : int
        Every frame before it is committed; it is ahead of `appended` where an earlier run had sent
        more of the same stream.
    kept_bytes : int
        The size of the frames.
    """

    def __init__(self, max_bytes: int) -> None:
        self.appended = 0
        self.committed = 0
        self.kept_bytes = 0
        self._max_bytes = max_bytes
        self._sent: deque[EncodedFrames] = deque()
        self._unsent: deque[EncodedFrames] = deque()
        self._kept_frames = 0
        self._unsent_frames = 0
        self._server_behind = 0
        """The difference between our sequences and the server's, which count lower."""

    @property
    def is_full(self) -> bool:
        """Whether the source is to wait."""
        return self.kept_bytes >= self._max_bytes

    @property
    def sent(self) -> int:
        """The sequence after the last frame that was sent."""
        return self.appended - self._unsent_frames

    def append(self, frames: EncodedFrames) -> None:
        """Add the source's next frames, without those that the server has committed already."""
        known = self.committed - self.appended
        self.appended += len(frames)
        if known > 0:
            frames = frames[known:]
        if len(frames):
            self._unsent.append(frames)
            self._unsent_frames += len(frames)
            self._keep(frames, 1)

    def known_of(self, count: int) -> int:
        """Return how many of the source's next `count` frames the server has committed already."""
        return min(max(0, self.committed - self.appended), count)

    def skip(self, count: int) -> None:
        """Pass over the source's next frames, which the server has committed."""
        self.appended += count

    def take(self) -> memoryview | bytes:
        """Return the bytes to send next, none when everything is sent; they count as sent."""
        parts: list[memoryview] = []
        size = 0
        while self._unsent and size < _WRITE_BYTES:
            frames = self._unsent.popleft()
            self._sent.append(frames)
            self._unsent_frames -= len(frames)
            parts.append(frames.data)
            size += len(frames.data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def commit(self, next_sequence: int) -> None:
        """Drop the frames that the server has committed: all before its `next_sequence`."""
        self.committed = max(self.committed, next_sequence + self._server_behind)
        first = self.appended - self._kept_frames
        while self._sent and first + len(self._sent[0]) <= self.committed:
            frames = self._sent.popleft()
            first += len(frames)
            self._keep(frames, -1)

    def resume(self, next_sequence: int) -> int:
        """Go back to the frame that the server expects next, after a new connection.

        Returns
        -------
        int
            How many frames the server had committed and has lost since; they are dropped here.
        """
        lost = max(0, self.committed - self._server_behind - next_sequence)
        self._server_behind += lost
        self._sent.extend(self._unsent)
        self._unsent.clear()
        self.commit(next_sequence)
        self._sent, self._unsent = self._unsent, self._sent
        if self._unsent:
            first = self.appended - self._kept_frames
            frames = self._unsent.popleft()
            self._keep(frames, -1)
            frames = frames[max(0, self.committed - first) :]
            self._keep(frames, 1)
            self._unsent.appendleft(frames)
        self._unsent_frames = self._kept_frames
        return lost

    def _keep(self, frames: EncodedFrames, sign: int) -> None:
        self._kept_frames += sign * len(frames)
        self.kept_bytes += sign * len(frames.data)
