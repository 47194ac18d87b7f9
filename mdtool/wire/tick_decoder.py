"""Decodes what one client sends to the ingest server: token, Hello, Tick frames, and an End."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mdtool.core.errors import PeerError
from mdtool.core.lots import LotConverter
from mdtool.core.symbols import MAX_SYMBOL_CHARS, SymbolTable
from mdtool.core.tls import TLS_TO_PLAIN, is_tls
from mdtool.core.trades import PROBE, Frames, Reason, Trades
from mdtool.core.units import MIN_TIMESTAMP_NS
from mdtool.wire import tick_kernel as kernel
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import (
    CONTROL_BIT,
    END_FRAME,
    HEADER_BYTES,
    MAX_CONTROL_BYTES,
    MAX_FRAME_BYTES,
    PROBE_FRAME,
    Auth,
    Hello,
    decode_auth,
    decode_lot,
    decode_opening,
    encode_frame,
)
from mdtool.wire.proxy_header import UNEXPECTED, opens_header
from mdtool.wire.symbol_index import SymbolIndex

Bytes: TypeAlias = bytes | bytearray | memoryview

MAX_DETAILS: Final = 3
"""How many of the refusals of one chunk are put into words."""

_NO_FIELDS: Final = b"\x18\x00"
"""A Tick whose every field has its default, in a payload that is not empty."""
_NO_TOKEN: Final = "token: missing; begin with an Auth frame, as mdtool send --token-file does"  # noqa: S105 - a message
_SHOWN_CHARS: Final = 24
_UNITS_BELOW: Final = ((10**11, "s"), (10**14, "ms"), (MIN_TIMESTAMP_NS, "us"))
"""The unit that a time below each bound can only be in, if it is not before March 1973."""


@dataclass(slots=True)
class Decoded:
    """The content of a chunk of bytes.

    Attributes
    ----------
    frames : Frames
        The frames that the chunk completed.
    hello : str or None
        The stream id, where the connection's opening Hello was among them.
    token : str or None
        Where the frames ended with an Auth. What came behind it is decoded by the next `feed`.
    details : list of str
        For the log, what is wrong with the first few of the refused frames.
    has_ended : bool
        Whether the client's End was among them, behind which nothing is read.
    """

    frames: Frames
    hello: str | None = None
    token: str | None = field(default=None, repr=False)
    details: list[str] = field(default_factory=list)
    has_ended: bool = False


class FrameError(PeerError):
    """A client broke the protocol, and its connection must be closed.

    Attributes
    ----------
    decoded : Decoded
        The frames before the wrong one, in the same chunk.
    """

    def __init__(self, what: str, decoded: Decoded) -> None:
        super().__init__(what)
        self.decoded = decoded


class TickDecoder:
    """Reads what one client sends, in chunks cut anywhere.

    Parameters
    ----------
    index : SymbolIndex
        Shared by all connections of a process; symbols of accepted ticks are added to it.
    max_frame_bytes : int
        The longest payload that the client may send.
    any_price : bool
        Whether prices of 0 and below are accepted.
    needs_token : bool
        See below.

    Attributes
    ----------
    needs_token : bool
        Whether the first frame has to be an Auth.
    may_write : callable
        Whether the client may send ticks of a symbol: Lots of others are left out.
    """

    __slots__ = (
        "_index",
        "_is_open",
        "_limits",
        "_lots",
        "_needed_bytes",
        "_pending",
        "may_write",
        "needs_token",
    )

    def __init__(
        self,
        index: SymbolIndex,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        *,
        any_price: bool = False,
        needs_token: bool = False,
    ) -> None:
        self._index = index
        self.needs_token = needs_token
        self.may_write: Callable[[str], bool] = lambda _symbol: True
        self._limits = (max_frame_bytes, any_price)
        self._lots = LotConverter(index.symbols)
        self._pending = bytearray()
        self._needed_bytes = HEADER_BYTES
        self._is_open = False

    @property
    def symbols(self) -> SymbolTable:
        """The symbols of all trades, by the indices that these have."""
        return self._index.symbols

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame have arrived."""
        return len(self._pending)

    def feed(self, data: Bytes, ingest_ns: int) -> Decoded:
        """Take bytes as they arrive and return the frames that they complete.

        Parameters
        ----------
        data : bytes-like
            The next bytes of the connection. They are not kept.
        ingest_ns : int
            The ingest timestamp of the ticks among them.

        Raises
        ------
        FrameError
            For a length that is 0 or too long, for a control frame that is none of an Auth, a
            Hello before all ticks, a Lot, and a Probe or an End behind it, and for a missing token.
            Every later call raises it again.
        """
        if self._pending:
            self._pending += data
            data = self._pending
        start, hello = 0, None
        if not self._is_open:
            start, opening = self._open(data)
            if isinstance(opening, Auth):
                self._keep(data, start)
                return Decoded(Frames.empty(), token=opening.token)
            hello = None if opening is None else opening.stream_id
        if not self._is_open or len(data) < self._needed_bytes:
            self._keep(data, 0)
            return Decoded(Frames.empty())
        parts, details, position = [], [], start
        while True:
            run = FrameRun(self._index, data, position, self._limits, ingest_ns)
            is_sound = run.decode()
            parts.append(self._lots.convert(run.frames()))
            details += run.details()
            # What follows a Lot is a run of its own, for its volumes may be converted.
            position = run.position if is_sound else self._read_lots(data, run.position)
            if position == run.position:
                break
        self._keep(data, position)
        decoded = Decoded(
            Frames.concatenate(parts), hello, details=details, has_ended=run.has_ended
        )
        if not is_sound:
            return self._read_auth(data, position, decoded)
        self._needed_bytes = HEADER_BYTES
        if len(data) - position >= HEADER_BYTES:
            self._needed_bytes += _header(data, position) & ~CONTROL_BIT
        return decoded

    def _read_lots(self, data: Bytes, position: int) -> int:
        """Read the whole Lots at a position, and return where they end."""
        while _is_control(data, position):
            begin = position + HEADER_BYTES
            end = begin + (_header(data, position) & ~CONTROL_BIT)
            if end > min(len(data), begin + MAX_CONTROL_BYTES):
                break
            if (lot := decode_lot(bytes(data[begin:end]))) is None:
                break
            self._take_lot(*lot)
            position = end
        return position

    def _take_lot(self, symbol: str, lot: int) -> None:
        index = self._index.symbols.find(symbol)
        if not self.may_write(symbol) or (index is None and self._index.is_full):
            return  # its ticks are refused for their symbol
        self._lots.take(self._index.intern(symbol) if index is None else index, lot)

    def _read_auth(self, data: Bytes, position: int, decoded: Decoded) -> Decoded:
        """Read the frame at which the kernel stopped, where that is an Auth.

        Raises
        ------
        FrameError
            When it is not.
        """
        header = _header(data, position)
        end = position + HEADER_BYTES + (header & ~CONTROL_BIT)
        if header >= CONTROL_BIT and end - position - HEADER_BYTES <= MAX_CONTROL_BYTES:
            if len(data) < end:
                self._needed_bytes = end - position
                return decoded
            with contextlib.suppress(PeerError):
                auth = decode_auth(bytes(data[position + HEADER_BYTES : end]))
                if auth is not None:
                    self._pending = bytearray(data[end:])
                    self._needed_bytes = HEADER_BYTES
                    decoded.token = auth.token
                    return decoded
        self._needed_bytes = 0
        raise FrameError(self._complaint(header), decoded)

    def _open(self, data: Bytes) -> tuple[int, Auth | Hello | None]:
        """Read the control frame that opens a connection, where there is one.

        Returns
        -------
        int, Auth or Hello or None
            Where the frames behind it begin, and the control frame.
        """
        if len(data) < HEADER_BYTES:
            return 0, None
        header = _header(data, 0)
        if header < CONTROL_BIT or data[: len(END_FRAME)] == END_FRAME:
            if self.needs_token:
                self._keep(data, 0)
                what = _other_protocol(header) or _NO_TOKEN
                raise FrameError(what, Decoded(Frames.empty()))
            self._is_open = True
            return 0, None
        length = header - CONTROL_BIT
        if length > MAX_CONTROL_BYTES:
            self._keep(data, 0)
            what = f"control frame of {length:,} bytes is over {MAX_CONTROL_BYTES:,}"
            raise FrameError(what, Decoded(Frames.empty()))
        end = HEADER_BYTES + length
        if len(data) < end:
            return 0, None
        payload = bytes(data[HEADER_BYTES:end])
        if decode_lot(payload) is not None and not self.needs_token:
            self._is_open = True
            return 0, None
        try:
            opening = decode_opening(payload)
        except PeerError as error:
            self._keep(data, 0)
            raise FrameError(str(error), Decoded(Frames.empty())) from error
        if isinstance(opening, Auth):
            self.needs_token = False
        elif self.needs_token:
            self._keep(data, 0)
            raise FrameError(_NO_TOKEN, Decoded(Frames.empty()))
        else:
            self._is_open = True
        return end, opening

    def _keep(self, data: Bytes, start: int) -> None:
        """Store the unread bytes. A long frame in many small chunks is copied only once."""
        if start or data is not self._pending:
            self._pending = bytearray(data[start:])

    def _complaint(self, header: int) -> str:
        if header == 0:
            return "frame of length 0"
        if header >= CONTROL_BIT:
            return "control frame that is none of Probe, Auth, End and a valid Lot, after the first"
        return _other_protocol(header) or f"frame of {header:,} bytes is over {self._limits[0]:,}"


def _other_protocol(header: int) -> str | None:
    """Return the complaint about a client whose first bytes are another protocol's."""
    opening = header.to_bytes(HEADER_BYTES, "big")
    if is_tls(opening):
        return TLS_TO_PLAIN
    return UNEXPECTED if opens_header(opening) else None


class FrameRun:
    """One pass of the kernel over a chunk, with what it cannot do by itself.

    The kernel stops at a symbol that is not in the index yet, which is added, and at a frame with
    a group, which protobuf's parser reads.
    """

    __slots__ = (
        "_arguments",
        "_columns",
        "_data",
        "_fields",
        "_index",
        "_indices",
        "_refused",
        "_scratch",
        "_state",
        "has_ended",
    )

    def __init__(
        self,
        index: SymbolIndex,
        data: Bytes,
        start: int,
        limits: tuple[int, bool],
        ingest_ns: int,
    ) -> None:
        self.has_ended = False
        self._index = index
        self._data = data
        self._arguments = (*limits, ingest_ns)
        unread = len(data) - start
        room = unread // kernel.MIN_TICK_BYTES + 1
        self._columns: NDArray[np.int64] = np.empty((4, room), np.int64)
        self._indices: NDArray[np.uint32] = np.empty((2, room), np.uint32)
        room = unread // kernel.MIN_FRAME_BYTES + 1
        self._refused: NDArray[np.uint32] = np.empty((3, room), np.uint32)
        self._scratch: NDArray[np.int64] = np.empty(kernel.SYMBOL_WORDS, np.int64)
        self._fields: NDArray[np.int64] = np.empty(kernel.TICK_FIELDS, np.int64)
        self._state: NDArray[np.int64] = np.zeros(4, np.int64)
        self._state[kernel.POSITION] = start

    @property
    def position(self) -> int:
        """The offset of the first frame that is not read."""
        return int(self._state[kernel.POSITION])

    def decode(self) -> bool:
        """Read all whole frames, up to an End; return False at a Lot, an Auth or a wrong length."""
        data = np.frombuffer(self._data, np.uint8)
        # Whatever the buffer is, so that the kernel is compiled once.
        data.setflags(write=False)
        while (status := self._advance(data)) != kernel.DONE:
            if status == kernel.GROUP:
                self._read_by_protobuf()
                continue
            start = bytes(data[self.position : self.position + len(PROBE_FRAME)])
            if start == END_FRAME:
                self._state[kernel.POSITION] += len(END_FRAME)
                self.has_ended = True
                return True
            if start != PROBE_FRAME:
                return PROBE_FRAME.startswith(start) or END_FRAME.startswith(start)
            self._read_probe()
        return True

    def frames(self) -> Frames:
        """Return what was read."""
        _, count, accepted, refused = self._state.tolist()
        symbol, offset = self._indices[:, :accepted]
        return Frames(
            trades=Trades(symbol, *self._columns[:, :accepted]),
            offset=offset,
            count=count,
            # Copies, for the arrays that they are in are mostly empty.
            refused_offset=self._refused[0, :refused].copy(),
            refused_reason=self._refused[1, :refused].astype(np.uint8),
        )

    def details(self) -> list[str]:
        """Say what is wrong with the first few of the frames refused."""
        count = min(int(self._state[kernel.REFUSED]), MAX_DETAILS)
        if not count:
            return []
        _, reasons, positions = self._refused[:, :count].tolist()
        return [
            _describe(self._payload(position), Reason(reason), any_price=self._arguments[1])
            for reason, position in zip(reasons, positions, strict=True)
            if reason != PROBE
        ]

    def _advance(self, data: NDArray[np.uint8]) -> int:
        while True:
            status = kernel.decode_frames(
                data,
                self._index.table,
                self._index.words,
                self._index.is_full,
                *self._arguments,
                self._columns,
                self._indices,
                self._refused,
                self._scratch,
                self._fields,
                self._state,
            )
            if status != kernel.NEW_SYMBOL:
                return status
            self._index.add(self._scratch)

    def _read_probe(self) -> None:
        state = self._state
        self._refused[:, int(state[kernel.REFUSED])] = state[kernel.FRAMES], PROBE, self.position
        state[kernel.FRAMES] += 1
        state[kernel.REFUSED] += 1
        state[kernel.POSITION] += len(PROBE_FRAME)

    def _read_by_protobuf(self) -> None:
        """Have protobuf's parser read one frame, and the kernel the Tick that it found."""
        state = self._state
        position = self.position
        refused_before = int(state[kernel.REFUSED])
        payload = self._payload(position)
        try:
            tick = tick_pb2.Tick.FromString(payload)
        except DecodeError:
            self._refused[:2, refused_before] = state[kernel.FRAMES], Reason.MALFORMED
            state[kernel.FRAMES] += 1
            state[kernel.REFUSED] += 1
        else:
            tick.DiscardUnknownFields()
            frame = encode_frame(tick.SerializeToString() or _NO_FIELDS)
            state[kernel.POSITION] = 0
            self._advance(np.frombuffer(frame, np.uint8))
        if state[kernel.REFUSED] > refused_before:
            self._refused[2, refused_before] = position
        state[kernel.POSITION] = position + HEADER_BYTES + len(payload)

    def _payload(self, position: int) -> bytes:
        end = position + HEADER_BYTES + _header(self._data, position)
        return bytes(self._data[position + HEADER_BYTES : end])


def decode_messages(
    messages: Iterable[tick_pb2.Tick],
    index: SymbolIndex,
    ingest_ns: int,
    *,
    any_price: bool = False,
) -> Decoded:
    """Check ticks that arrived as messages, by the same rules as ticks in frames."""
    data = b"".join(encode_frame(message.SerializeToString() or _NO_FIELDS) for message in messages)
    decoder = TickDecoder(index, max_frame_bytes=CONTROL_BIT - 1, any_price=any_price)
    return decoder.feed(data, ingest_ns)


def _describe(payload: bytes, reason: Reason, *, any_price: bool) -> str:
    """Describe in one line what is wrong with a Tick that was refused for `reason`."""
    if reason is Reason.MALFORMED:
        return f"payload of {len(payload):,} bytes is not a Tick"
    try:
        tick = tick_pb2.Tick.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"a payload refused for its {reason.label} is not a Tick") from error
    if reason is Reason.SYMBOL:
        return _describe_symbol(tick.symbol)
    if reason is Reason.PRICE:
        bound = "" if any_price else "above 0 and "
        return f"price {tick.price!r} is not {bound}within int64 at 1e-9"
    if reason is Reason.VOLUME:
        return f"volume {tick.volume} is not above 0"
    return _describe_timestamp(tick.exchange_timestamp)


def _describe_symbol(symbol: str) -> str:
    # What is not ASCII is not trimmed either, though Python knows more kinds of spaces.
    trimmed = symbol.strip() if symbol.isascii() else symbol
    if not trimmed:
        return "symbol is empty"
    shown = repr(trimmed[:_SHOWN_CHARS]) + ("..." if len(trimmed) > _SHOWN_CHARS else "")
    if not (trimmed.isascii() and trimmed.isprintable()):
        return f"symbol {shown} is not printable ASCII"
    if len(trimmed) > MAX_SYMBOL_CHARS:
        return f"symbol {shown} has {len(trimmed):,} characters, over {MAX_SYMBOL_CHARS}"
    return f"symbol {shown} is one too many: the symbol table is full"


def _describe_timestamp(timestamp: int) -> str:
    if timestamp <= 0:
        return f"timestamp {timestamp} is not above 0"
    unit = next(unit for bound, unit in _UNITS_BELOW if timestamp < bound)
    return f"timestamp {timestamp} is in {unit}, not in ns"


def _is_control(data: Bytes, position: int) -> bool:
    return len(data) - position >= HEADER_BYTES and _header(data, position) >= CONTROL_BIT


def _header(data: Bytes, position: int) -> int:
    return int.from_bytes(data[position : position + HEADER_BYTES], "big")
