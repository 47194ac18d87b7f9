"""Control frames and Acks: how a client and the ingest server agree on where a stream stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from google.protobuf.message import DecodeError

from mdtool.core.errors import PeerError
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import FrameSplitter, encode_frame

MAX_CONTROL_BYTES: Final = 1_024
MAX_STREAM_ID_CHARS: Final = 128


@dataclass(frozen=True, slots=True)
class Resume:
    """The server's answer to a Hello: the sequence of the frame that it wants next."""

    next_sequence: int


@dataclass(frozen=True, slots=True)
class Committed:
    """Every frame before `next_sequence` is committed and need not be kept for a resend."""

    next_sequence: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The server's last word, after the client closed its sending half."""

    success: bool
    message: str


Reply: TypeAlias = Resume | Committed | Ack


def encode_hello(stream_id: str) -> bytes:
    """Return the frame with which a client opens a stream that it wants to resume."""
    return _encode(tick_pb2.Control(hello=tick_pb2.Hello(stream_id=stream_id)))


def encode_resume(next_sequence: int) -> bytes:
    """Return the server's answer to a Hello."""
    return _encode(tick_pb2.Control(resume=tick_pb2.Resume(next_sequence=next_sequence)))


def encode_committed(next_sequence: int) -> bytes:
    """Return the frame that says how far a stream is committed."""
    return _encode(tick_pb2.Control(committed=tick_pb2.Committed(next_sequence=next_sequence)))


def encode_ack(success: bool, message: str) -> bytes:
    """Return the frame that ends a connection, one that every client of the protocol knows."""
    return encode_frame(tick_pb2.Ack(success=success, message=message).SerializeToString())


def decode_hello(payload: bytes) -> str:
    """Return the stream id in the payload of a client's control frame.

    Raises
    ------
    PeerError
        When it is no Hello, or its stream id is not 1 to 128 printable characters.
    """
    message = _parse(payload)
    if message.WhichOneof("kind") != "hello":
        raise PeerError("control frame is no Hello, the only one that a client may send")
    stream_id = message.hello.stream_id
    if not is_stream_id(stream_id):
        raise PeerError(f"stream id is not 1 to {MAX_STREAM_ID_CHARS} printable characters")
    return stream_id


def is_stream_id(text: str) -> bool:
    """Tell whether a text can name a stream: 1 to 128 printable characters."""
    return 1 <= len(text) <= MAX_STREAM_ID_CHARS and text.isprintable()


class ReplyDecoder:
    """Reads what an ingest server sends to one client."""

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
            For what is no reply of an ingest server.
        """
        return [
            _decode_control(payload) if is_control else _decode_ack(payload)
            for is_control, payload in self._frames.feed(data)
        ]


def _encode(message: tick_pb2.Control) -> bytes:
    return encode_frame(message.SerializeToString(), control=True)


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
        raise PeerError("frame is no Ack") from error
    return Ack(message.success, message.message)
