"""Length-prefixed frames: what stands before each message on a connection to the ingest server.

A frame is a `uint32` in network order and as many bytes of payload. A length with its top bit set
marks a control frame, whose payload is a `Control`; every other frame carries a `Tick` on the way
to the server and an `Ack` on the way back.
"""

from __future__ import annotations

from typing import Final

from mdtool.core.errors import PeerError

HEADER_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 1_000_000
CONTROL_BIT: Final = 1 << 31


def encode_frame(payload: bytes, *, control: bool = False) -> bytes:
    """Return `payload` behind its header."""
    length = len(payload) | CONTROL_BIT if control else len(payload)
    return length.to_bytes(HEADER_BYTES, "big") + payload


class FrameSplitter:
    """Cuts a byte stream into frames, wherever the chunks it arrives in are cut.

    Parameters
    ----------
    max_frame_bytes : int
        The longest payload that the peer may send.
    """

    __slots__ = ("_max_frame_bytes", "_pending")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame have arrived."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[bool, bytes]]:
        """Take bytes as they arrive and return the frames that they complete.

        Returns
        -------
        list of (bool, bytes)
            Whether a frame is a control frame, and its payload, in order of arrival.

        Raises
        ------
        PeerError
            For a length over `max_frame_bytes`. Nothing can be fed after it.
        """
        pending = self._pending
        pending += data
        frames = []
        position = 0
        while len(pending) - position >= HEADER_BYTES:
            header = int.from_bytes(pending[position : position + HEADER_BYTES], "big")
            length = header & ~CONTROL_BIT
            if length > self._max_frame_bytes:
                raise PeerError(f"frame of {length:,} bytes is over {self._max_frame_bytes:,}")
            end = position + HEADER_BYTES + length
            if end > len(pending):
                break
            frames.append((header != length, bytes(pending[position + HEADER_BYTES : end])))
            position = end
        del pending[:position]
        return frames
