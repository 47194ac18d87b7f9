"""Compressed streams, recognised by their magic bytes and unwrapped in pieces of any size.

zstd, gzip, xz and bzip2; a stream may have any number of frames, of gzip members or of whole files.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Final, Protocol

import zstandard

from mdtool.core.errors import InputError

MAGIC_BYTES: Final = 4
MOST_BYTES: Final = 1 << 25
"""The approximate limit of what a call returns: a few bytes can expand to gigabytes."""

_ZSTD_FRAME: Final = 0xFD2FB528
_SKIPPABLE_FRAMES: Final = range(0x184D2A50, 0x184D2A60)
_MAX_WINDOW_BYTES: Final = 1 << 31
"""The largest of zstd, `--long=31`."""
_ZSTD_HEADER_BYTES: Final = 6
_SINGLE_SEGMENT: Final = 0x20
_CHECKSUM: Final = 4
"""The flag of a checksum, and its length."""
_REPEATED: Final = 1
"""The kind of a block that is one byte, repeated."""
_BLOCK_HEADER_BYTES: Final = 3
_SLICE_BYTES: Final = 1 << 12
"""So much zstd at a time gives 128 MB at worst: a block is at most 128 KB, and at least 4 bytes."""
_PIECE_BYTES: Final = 1 << 20
_PADDED: Final = frozenset({"gzip", "xz"})
"""What may be followed by NULs up to the end of a block."""


def compression_of(head: bytes | memoryview) -> str | None:
    """Return how a stream that begins with these `MAGIC_BYTES` is compressed, None if it is not."""
    magic = int.from_bytes(head[:MAGIC_BYTES], "little")
    if magic == _ZSTD_FRAME or magic in _SKIPPABLE_FRAMES:
        return "zstd"
    first = bytes(head[:MAGIC_BYTES])
    if first[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if first == b"\xfd7zX":
        return "xz"
    if first[:3] == b"BZh" and first[3:] in _BZIP2_LEVELS:
        return "bzip2"
    return None


_BZIP2_LEVELS: Final = frozenset(bytes([level]) for level in b"123456789")


def head_of(data: bytes) -> bytes:
    """Return the first bytes of a stream, decompressed if it is compressed."""
    return data if compression_of(data) is None else Unwrapper().feed(data)


class Unwrapper:
    """Gives back what was compressed, however the compressed bytes were cut into pieces.

    What follows a frame may be another one, also compressed otherwise, or a DBN file that is not
    compressed, which lasts to the end.

    Attributes
    ----------
    name : str
        How the stream is compressed, empty before its first bytes have come.
    error : InputError or None
        Where the stream is damaged: what it has before that was returned.
    """

    def __init__(self) -> None:
        self.name = ""
        self.error: InputError | None = None
        self._frame: _Frame | None = None
        self._held = memoryview(b"")

    @property
    def is_inside_frame(self) -> bool:
        """Whether a frame has begun that has not ended."""
        return self._frame is not None and not isinstance(self._frame, _Plain)

    @property
    def has_more(self) -> bool:
        """Whether `feed` has more to return without further bytes."""
        if self.error is not None:
            return False
        if self._frame is None:
            return len(self._held) >= MAGIC_BYTES
        return bool(self._held) or self._frame.has_more

    def feed(self, data: bytes, before: bytes = b"") -> bytes:
        """Return `before`, and what `data` completes, perhaps nothing, at most about `MOST_BYTES`.

        The rest is held: see `has_more`.
        """
        view = memoryview(bytes(self._held) + data if self._held else data)
        pieces = [before] if before else []
        n_bytes = 0
        try:
            while n_bytes < MOST_BYTES and self.error is None:
                if self._frame is None:
                    view = self._begin(view)
                    if self._frame is None:
                        break
                piece, view = self._frame.decompress(view)
                pieces.append(piece)
                n_bytes += len(piece)
                if self._frame.is_over:
                    self._frame = None
                elif not self._frame.has_more and not view:
                    break
        except InputError as error:
            self.error = error
        self._held = view
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> None:
        """Check that the stream may end here.

        Raises
        ------
        InputError
        """
        if self.error is not None:
            raise self.error
        if self.is_inside_frame:
            raise InputError(f"ends inside a {self.name} frame")
        if bytes(self._held).strip(b"\0"):
            raise self._garbage()

    def _begin(self, view: memoryview) -> memoryview:
        """Begin the frame with which bytes begin, if they are enough; return them."""
        if self.name in _PADDED and view and view[0] == 0:
            view = view[len(view) - len(bytes(view).lstrip(b"\0")) :]
        if len(view) < MAGIC_BYTES:
            return view
        name = compression_of(view)
        if name is not None:
            self.name = name
            self._frame = _FRAMES[name]()
        elif bytes(view[:3]) == b"DBN":
            self._frame = _Plain()
        else:
            raise self._garbage()
        return view

    def _garbage(self) -> InputError:
        return InputError(f"damaged {self.name} (what follows a frame is not another one)")


class Inflater:
    """Unwraps one member of a zip, a raw deflate stream, as an `Unwrapper` does."""

    def __init__(self) -> None:
        self._frame = _Deflate(-zlib.MAX_WBITS, "zip")
        self._held = memoryview(b"")

    @property
    def is_over(self) -> bool:
        """Whether the member has ended."""
        return self._frame.is_over

    @property
    def needs_input(self) -> bool:
        """Whether `feed` returns nothing without further bytes."""
        return not self._held

    def feed(self, data: bytes) -> bytes:
        """Return some of what `data` and the bytes before complete, about a megabyte.

        Raises
        ------
        InputError
            When the member is damaged.
        """
        piece, self._held = self._frame.decompress(memoryview(bytes(self._held) + data))
        return piece


class _Frame(Protocol):
    """A frame that is decompressed in steps."""

    @property
    def is_over(self) -> bool:
        """Whether its end was met."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether a step without bytes returns something."""
        ...

    def decompress(self, data: memoryview) -> tuple[bytes, memoryview]:
        """Return what a step gives, and the bytes that it did not take."""
        ...


class _Zstd:
    """A frame of zstd; skippable ones are empty."""

    has_more = False

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
        self._blocks = _ZstdBlocks()
        self._head = b""

    @property
    def is_over(self) -> bool:
        return self._frame.eof

    def decompress(self, data: memoryview) -> tuple[bytes, memoryview]:
        taken = data[: self._blocks.end(data)]
        if len(self._head) < _ZSTD_HEADER_BYTES:
            self._head += bytes(taken[:_ZSTD_HEADER_BYTES])
        try:
            piece = self._frame.decompress(taken)
        except zstandard.ZstdError as error:
            raise InputError(self._what(error)) from error
        n_left = len(self._frame.unused_data) if self._frame.eof else 0
        return piece, data[len(taken) - n_left :]

    def _what(self, error: zstandard.ZstdError) -> str:
        window = _window_bytes(self._head)
        if window > _MAX_WINDOW_BYTES:
            return (
                f"has a zstd window of {window:,} bytes, and 2^31 are the most that are read; "
                "compress it with --long=31 or less"
            )
        return f"damaged zstd ({error})"


class _ZstdBlocks:
    """Where the blocks of a frame end, as its bytes come (RFC 8878, 3.1.1).

    A decompressor that is given whole blocks copies none of them, and is called a tenth as often.
    """

    def __init__(self) -> None:
        self._header = b""
        """What has come of the next header: the frame's first bytes, then those of blocks."""
        self._header_bytes = MAGIC_BYTES + 1
        self._ahead = 0
        """How many bytes come before that header."""
        self._checksum_bytes = 0

    def end(self, data: memoryview) -> int:
        """Return how many bytes to take: to the first end of a block behind 4 KB, or all."""
        at = self._ahead
        while self._header_bytes and at < min(len(data), _SLICE_BYTES):
            piece = bytes(data[at : at + self._header_bytes - len(self._header)])
            at += len(piece)
            self._header += piece
            if len(self._header) == self._header_bytes:
                at += self._follows(self._header)
                self._header = b""
        end = min(len(data), at or _SLICE_BYTES)
        self._ahead = max(at - end, 0)
        return end

    def _follows(self, header: bytes) -> int:
        """Return how many bytes come between a whole header and the next one."""
        if self._header_bytes > _BLOCK_HEADER_BYTES:
            return self._follows_first(header)
        number = int.from_bytes(header, "little")
        is_last, kind, n_bytes = number & 1, number >> 1 & 3, number >> 3
        content_bytes = 1 if kind == _REPEATED else n_bytes
        if not is_last:
            return content_bytes
        self._header_bytes = 0
        return content_bytes + self._checksum_bytes

    def _follows_first(self, header: bytes) -> int:
        if int.from_bytes(header[:MAGIC_BYTES], "little") != _ZSTD_FRAME:
            self._header_bytes = 0  # a frame to be skipped has no blocks
            return 0
        described = header[MAGIC_BYTES]
        is_single = bool(described & _SINGLE_SEGMENT)
        size_bytes = (int(is_single), 2, 4, 8)[described >> 6]
        self._checksum_bytes = _CHECKSUM if described & _CHECKSUM else 0
        self._header_bytes = _BLOCK_HEADER_BYTES
        return int(not is_single) + (0, 1, 2, 4)[described & 3] + size_bytes


def _window_bytes(head: bytes) -> int:
    """Return the window that a frame's header names, 0 where it names none (RFC 8878, 3.1.1)."""
    if len(head) < MAGIC_BYTES + 2 or head[4] & _SINGLE_SEGMENT:
        return 0
    exponent, mantissa = head[5] >> 3, head[5] & 7
    return (8 + mantissa) << (7 + exponent)


class _Deflate:
    """A gzip member, or a member of a zip."""

    has_more = False

    def __init__(self, window_bits: int = zlib.MAX_WBITS | 16, name: str = "gzip") -> None:
        self._name = name
        self._member = zlib.decompressobj(window_bits)

    @property
    def is_over(self) -> bool:
        return self._member.eof

    def decompress(self, data: memoryview) -> tuple[bytes, memoryview]:
        try:
            piece = self._member.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            raise InputError(f"damaged {self._name} ({error})") from error
        n_left = len(self._member.unconsumed_tail) + len(self._member.unused_data)
        return piece, data[len(data) - n_left :]


class _Blocks:
    """A stream of xz or bzip2, whose decompressors hold what they were given."""

    def __init__(
        self, make: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor], name: str
    ) -> None:
        self._stream = make()
        self._name = name

    @property
    def is_over(self) -> bool:
        return self._stream.eof

    @property
    def has_more(self) -> bool:
        return not self._stream.eof and not self._stream.needs_input

    def decompress(self, data: memoryview) -> tuple[bytes, memoryview]:
        taken, left = (data, data[:0]) if self._stream.needs_input else (data[:0], data)
        try:
            piece = self._stream.decompress(taken, _PIECE_BYTES)
        except (lzma.LZMAError, OSError, EOFError) as error:
            raise InputError(f"damaged {self._name} ({error})") from error
        except MemoryError as error:
            raise InputError(f"{self._name} that takes more memory than there is") from error
        if self._stream.eof:
            return piece, memoryview(self._stream.unused_data + bytes(left))
        return piece, left


class _Plain:
    """A file that is not compressed, after one that is."""

    is_over = has_more = False

    def decompress(self, data: memoryview) -> tuple[bytes, memoryview]:
        return bytes(data), data[:0]


_FRAMES: Final[dict[str, Callable[[], _Frame]]] = {
    "zstd": _Zstd,
    "gzip": _Deflate,
    "xz": lambda: _Blocks(lzma.LZMADecompressor, "xz"),
    "bzip2": lambda: _Blocks(bz2.BZ2Decompressor, "bzip2"),
}
