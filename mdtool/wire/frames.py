"""The frames on a connection to the ingest server, and the messages that place a stream in it.

A frame is a `uint32` in network order and as many bytes of payload. A length with its top bit set
marks a control frame, whose payload is a `Control`; every other frame carries a `Tick` on the way
to the server and an `Ack` on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from mdtool.core.errors import PeerError
from mdtool.core.symbols import normal_symbol
from mdtool.wire._pb import tick_pb2

HEADER_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 1_000_000
CONTROL_BIT: Final = 1 << 31
MAX_CONTROL_BYTES: Final = 16_640
"""Of a token of 16,384 characters, and what encodes it."""
MAX_STREAM_ID_CHARS: Final = 128


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


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a stream that can be resumed."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class Auth:
    """Authenticates the connection."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Resume:
    """The server's answer to a Hello: the sequence of the frame that it expects next."""

    next_sequence: int


@dataclass(frozen=True, slots=True)
class Committed:
    """Every frame before `next_sequence` is committed: it need not be sent again."""

    next_sequence: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The server's last reply, after the client's End or the end of its sending half."""

    success: bool
    message: str


Reply: TypeAlias = Resume | Committed | Ack


def _encode(message: tick_pb2.Control) -> bytes:
    return encode_frame(message.SerializeToString(), control=True)


def encode_hello(stream_id: str) -> bytes:
    """Return the frame with which a client opens a stream that can be resumed."""
    return _encode(tick_pb2.Control(hello=tick_pb2.Hello(stream_id=stream_id)))


def encode_auth(token: str) -> bytes:
    """Return the frame that authenticates a connection by a token."""
    return _encode(tick_pb2.Control(auth=tick_pb2.Auth(token=token)))


PROBE_FRAME: Final = _encode(tick_pb2.Control(probe=tick_pb2.Probe()))
"""A frame of a client's stream that follows the path of ticks, and changes no market."""

END_FRAME: Final = _encode(tick_pb2.Control(end=tick_pb2.End()))
"""The last frame of a client, which requests the Ack."""


def encode_lot(symbol: str, step: int) -> bytes:
    """Return the frame that says what one unit of a symbol's volumes stands for, in 1e-9."""
    return _encode(tick_pb2.Control(lot=tick_pb2.Lot(symbol=symbol, step=step)))


def decode_lot(payload: bytes) -> tuple[str, int] | None:
    """Return the symbol and the lot, in 1e-9, in the payload of a control frame.

    Returns
    -------
    tuple of str and int, or None
        None where it is another one, has no valid symbol, or a step of 0 or below.
    """
    try:
        message = _parse(payload)
    except PeerError:
        return None
    symbol = normal_symbol(message.lot.symbol)
    return None if symbol is None or message.lot.step <= 0 else (symbol, message.lot.step)


def encode_resume(next_sequence: int) -> bytes:
    """Return the server's answer to a Hello."""
    return _encode(tick_pb2.Control(resume=tick_pb2.Resume(next_sequence=next_sequence)))


def encode_committed(next_sequence: int) -> bytes:
    """Return the frame that reports how far a stream is committed."""
    return _encode(tick_pb2.Control(committed=tick_pb2.Committed(next_sequence=next_sequence)))


def encode_ack(success: bool, message: str) -> bytes:
    """Return the frame that ends a connection, known to all clients of the protocol."""
    return encode_frame(tick_pb2.Ack(success=success, message=message).SerializeToString())


def decode_opening(payload: bytes) -> Hello | Auth:
    """Return what a client's control frame at the beginning of its connection says.

    Raises
    ------
    PeerError
        When it is neither an Auth nor a Hello, or the stream id of a Hello is not 1 to 128
        printable characters.
    """
    message = _parse(payload)
    kind = message.WhichOneof("kind")
    if kind == "auth":
        return Auth(message.auth.token)
    if kind != "hello":
        raise PeerError("control frame is neither an Auth nor a Hello, with which a stream begins")
    stream_id = message.hello.stream_id
    if not is_stream_id(stream_id):
        raise PeerError(f"stream id is not 1 to {MAX_STREAM_ID_CHARS} printable characters")
    return Hello(stream_id)


def decode_auth(payload: bytes) -> Auth | None:
    """Return the Auth in the payload of a control frame, None where it is another one.

    Raises
    ------
    PeerError
        When it is not a control frame's.
    """
    message = _parse(payload)
    return Auth(message.auth.token) if message.WhichOneof("kind") == "auth" else None


def is_stream_id(text: str) -> bool:
    """Return whether a text can name a stream: 1 to 128 printable characters."""
    return 1 <= len(text) <= MAX_STREAM_ID_CHARS and text.isprintable()


class ReplyDecoder:
    """Reads the replies of an ingest server to one client."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames = FrameSplitter()

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame have arrived."""
        return self._frames.pending_bytes

    def feed(self, data: bytes | bytearray | memoryview) -> list[Reply]:
        """Take bytes as they arrive and return the replies that they complete, in order.

        Raises
        ------
        PeerError
            For what is not a reply of an ingest server.
        """
        return [
            _decode_control(payload) if is_control else _decode_ack(payload)
            for is_control, payload in self._frames.feed(data)
        ]


def _parse(payload: bytes) -> tick_pb2.Control:
    try:
        return tick_pb2.Control.FromString(payload)
    except DecodeError as error:
        raise PeerError("control frame is malformed") from error


def _decode_control(payload: bytes) -> Resume | Committed:
    message = _parse(payload)
    kind = message.WhichOneof("kind")
    if kind == "resume":
        return Resume(message.resume.next_sequence)
    if kind == "committed":
        return Committed(message.committed.next_sequence)
    raise PeerError("control frame is neither Resume nor Committed")


def _decode_ack(payload: bytes) -> Ack:
    try:
        message = tick_pb2.Ack.FromString(payload)
    except DecodeError as error:
        raise PeerError("frame is not an Ack") from error
    return Ack(message.success, message.message)
