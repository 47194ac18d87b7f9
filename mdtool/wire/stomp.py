"""STOMP frames of versions 1.0, 1.1 and 1.2: decoded from bytes, and encoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from mdtool.core.errors import PeerError

MAX_FRAME_BYTES: Final = 65_536
MAX_HEADER_BYTES: Final = 16_384
"""The largest command with all headers and the blank line that ends them."""

_EOLS: Final = (b"\n", b"\r")
_UNESCAPED: Final = frozenset({"CONNECT", "STOMP", "CONNECTED"})
"""Frames whose headers are never escaped: no version is agreed on yet."""
_LF_END: Final = re.compile(rb"\n\n")
_CRLF_END: Final = re.compile(rb"\n\r?\n")


class Version(StrEnum):
    """A version of STOMP."""

    V1_0 = "1.0"
    V1_1 = "1.1"
    V1_2 = "1.2"


_ESCAPES: Final[dict[Version, dict[bytes, bytes]]] = {
    Version.V1_0: {},
    Version.V1_1: {b"\\": rb"\\", b"\n": rb"\n", b":": rb"\c"},
    Version.V1_2: {b"\\": rb"\\", b"\n": rb"\n", b":": rb"\c", b"\r": rb"\r"},
}
_ESCAPED: Final = {
    version: re.compile(b"[%s]" % re.escape(b"".join(escapes))) if escapes else None
    for version, escapes in _ESCAPES.items()
}
_ORIGINALS: Final = {
    version: {escape: original for original, escape in escapes.items()}
    for version, escapes in _ESCAPES.items()
}
_ESCAPE: Final = re.compile(rb"\\.?", re.DOTALL)


class StompError(PeerError):
    """Bytes are not valid STOMP, or a header cannot be encoded in it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes
    ----------
    command : str
        Any; the decoder does not check it.
    headers : dict
        The first of each name, unescaped.
    body : bytes
        Empty where there is none.
    """

    command: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class StompDecoder:
    """Decodes frames from bytes in pieces of any size; EOLs between frames are skipped.

    Parameters
    ----------
    max_frame_bytes : int
        Of a frame, from its command to its NUL.
    max_header_bytes : int
        Of its command and headers.

    Attributes
    ----------
    version : Version or None
        Of the next frames; None before it is agreed on. It may be set between any two frames.

    References
    ----------
    STOMP 1.2, "STOMP Frames" and "Augmented BNF"; 1.1, the same sections. Headers of 1.0 are
    trimmed, for many of its clients pad them.
    """

    def __init__(
        self, max_frame_bytes: int = MAX_FRAME_BYTES, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        self.version: Version | None = None
        self._max_frame_bytes = max_frame_bytes
        self._max_header_bytes = max_header_bytes
        self._received = bytearray()
        self._searched = 0
        """The offset at which the search for the end of the headers, then of the body, resumes."""
        self._head: Frame | None = None
        """The frame whose body is not complete."""
        self._body = 0
        """The offset of that body."""

    def feed(self, data: bytes) -> None:
        """Add bytes that arrived."""
        self._received += data

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None until more arrives.

        Raises
        ------
        StompError
            When the next bytes are not a frame, or exceed a limit. The decoder cannot continue.
        """
        if self._head is None:
            self._head = self._take_head()
            if self._head is None:
                return None
        end = self._find_end(self._head)
        if end is None:
            return None
        body = bytes(self._received[self._body : end])
        frame = Frame(self._head.command, self._head.headers, body)
        self._head = None
        self._discard(end + 1)
        return frame

    def _take_head(self) -> Frame | None:
        """Return a frame's command and headers once they are complete."""
        received = self._received
        if received.startswith(_EOLS):
            self._discard(len(received) - len(received.lstrip(b"\r\n")))
        is_strict = self.version in {Version.V1_0, Version.V1_1}
        end = (_LF_END if is_strict else _CRLF_END).search(received, self._searched)
        limit = end.start() if end else len(received)
        if received.find(0, self._searched, limit) >= 0:
            raise StompError("a NUL precedes the blank line that ends the headers")
        if (end.end() if end else len(received)) > self._max_header_bytes:
            raise StompError(f"command and headers take more than {self._max_header_bytes:,} bytes")
        if end is None:
            self._searched = max(0, len(received) - 2)
            return None
        self._body = self._searched = end.end()
        command, *headers = bytes(received[: end.start()]).split(b"\n")
        return self._parse_head(command, headers, cr=b"" if is_strict else b"\r")

    def _parse_head(self, command: bytes, lines: Iterable[bytes], cr: bytes) -> Frame:
        frame = Frame(_text(command.removesuffix(cr)))
        version = None if frame.command in _UNESCAPED else self.version
        for line in lines:
            name, colon, value = line.removesuffix(cr).partition(b":")
            if version is Version.V1_0:
                name, value = name.strip(), value.strip()
            if not (name and colon):
                raise StompError(f"{_text(line)!r:.80} is not a valid header")
            frame.headers.setdefault(_unescape(name, version), _unescape(value, version))
        return frame

    def _find_end(self, head: Frame) -> int | None:
        """Return where the NUL is that ends a frame."""
        declared = head.headers.get("content-length") or None
        if declared is None:
            end = self._received.find(0, self._searched)
            self._searched = len(self._received)
            is_there, size = end >= 0, (end + 1 or len(self._received))
        else:
            if not (declared.isascii() and declared.isdigit() and len(declared) <= 9):
                raise StompError(f"content-length: {declared!r:.40} is not a number of bytes")
            end = self._body + int(declared)
            is_there, size = len(self._received) > end, end + 1
        if size > self._max_frame_bytes:
            raise StompError(f"a frame takes more than {self._max_frame_bytes:,} bytes")
        if is_there and self._received[end]:
            raise StompError(f"no NUL follows the {int(declared or 0):,} bytes of content-length")
        return end if is_there else None

    def _discard(self, size: int) -> None:
        del self._received[:size]
        self._searched = 0


def encode(
    command: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    version: Version = Version.V1_2,
) -> bytes:
    """Return a frame, with content-length where it has a body.

    Raises
    ------
    StompError
        For a header that the version cannot carry.
    """
    version = Version.V1_0 if command in _UNESCAPED else version
    lines = [f"{command}\n".encode(), encode_headers(headers or {}, version)]
    if body:
        lines.append(b"content-length:%d\n" % len(body))
    return b"".join((*lines, b"\n", body, b"\0"))


def encode_headers(headers: Mapping[str, str], version: Version) -> bytes:
    """Return header lines, each with its end.

    Raises
    ------
    StompError
        For a header that the version cannot carry: an empty name, a NUL; in 1.0 a newline, a colon
        in a name, or space around either.
    """
    return b"".join(
        b"%s:%s\n" % (_escape(name, version, is_name=True), _escape(value, version))
        for name, value in headers.items()
    )


def _escape(text: str, version: Version, *, is_name: bool = False) -> bytes:
    raw = text.encode()
    pattern = _ESCAPED[version]
    cannot_be = b"\0" in raw or (is_name and not raw)
    if pattern is None:
        cannot_be |= b"\n" in raw or raw != raw.strip() or (is_name and b":" in raw)
    if cannot_be:
        raise StompError(f"{text!r:.80} cannot be in a header of STOMP {version}")
    escapes = _ESCAPES[version]
    return pattern.sub(lambda found: escapes[found[0]], raw) if pattern else raw


def _unescape(raw: bytes, version: Version | None) -> str:
    if version is None or version is Version.V1_0 or b"\\" not in raw:
        return _text(raw)
    originals = _ORIGINALS[version]
    try:
        return _text(_ESCAPE.sub(lambda found: originals[found[0]], raw))
    except KeyError as error:
        escape = _text(error.args[0])
        raise StompError(f"STOMP {version} has no escape {escape!r}") from None


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise StompError("command and headers must be UTF-8") from error
