"""A plain reading of STOMP's grammar: a whole stream of bytes to its frames, one byte at a time."""

from __future__ import annotations

from dataclasses import dataclass

LETTERS = {
    "1.0": {},
    "1.1": {"n": "\n", "c": ":", "\\": "\\"},
    "1.2": {"n": "\n", "c": ":", "\\": "\\", "r": "\r"},
}
HANDSHAKE = {"CONNECT", "STOMP", "CONNECTED"}


class BadStreamError(Exception):
    """What comes next is no frame."""


@dataclass
class Stream:
    """Bytes of which some have been read."""

    data: bytes
    at: int = 0

    @property
    def is_read(self) -> bool:
        return self.at == len(self.data)

    def next(self) -> int:
        """The next byte; EOFError where there is none."""
        if self.is_read:
            raise EOFError
        self.at += 1
        return self.data[self.at - 1]


def frames_of(data: bytes, version: str | None, max_frame: int, max_header: int):
    """The frames of a stream as (command, headers, body), and whether something bad follows.

    What is unfinished at the end is left out.
    """
    stream = Stream(data)
    frames = []
    try:
        while not stream.is_read:
            if data[stream.at] in b"\r\n":
                stream.at += 1
            else:
                frames.append(_frame(stream, version, max_frame, max_header))
    except EOFError:
        return frames, False
    except BadStreamError:
        return frames, True
    return frames, False


def _frame(stream: Stream, version: str | None, max_frame: int, max_header: int):
    begin = stream.at
    lines = _lines(stream, version, begin + max_header)
    command = _text(lines[0])
    if command in HANDSHAKE:
        version = None
    headers = {}
    for line in lines[1:]:
        colon = line.find(b":")
        if colon < 0:
            raise BadStreamError
        name, value = line[:colon], line[colon + 1 :]
        if version == "1.0":
            name, value = name.strip(), value.strip()
        if not name:
            raise BadStreamError
        name, value = _plain(_text(name), version), _plain(_text(value), version)
        if name not in headers:
            headers[name] = value
    return command, headers, _body(stream, headers.get("content-length"), begin + max_frame)


def _lines(stream: Stream, version: str | None, limit: int) -> list[bytes]:
    """The lines before the blank one."""
    lines, line = [], b""
    while True:
        if stream.is_read and len(stream.data) > limit:
            raise BadStreamError
        byte = stream.next()
        if byte == 0 or stream.at > limit:
            raise BadStreamError
        if byte != 10:
            line += bytes([byte])
            continue
        if version not in {"1.0", "1.1"} and line.endswith(b"\r"):
            line = line[:-1]
        if not line and lines:
            return lines
        lines.append(line)
        line = b""


def _body(stream: Stream, declared: str | None, limit: int) -> bytes:
    body = b""
    if declared is None:
        while byte := _within(stream, limit):
            body += bytes([byte])
        return body
    if not declared or set(declared) - set("0123456789") or len(declared) > 9:
        raise BadStreamError
    if stream.at + int(declared) + 1 > limit:
        raise BadStreamError
    for _ in range(int(declared)):
        body += bytes([stream.next()])
    if stream.next() != 0:
        raise BadStreamError
    return body


def _within(stream: Stream, limit: int) -> int:
    if stream.at >= limit and not stream.is_read:
        raise BadStreamError
    return stream.next()


def _plain(text: str, version: str | None) -> str:
    if version in {None, "1.0"}:
        return text
    plain, rest = "", iter(text)
    for letter in rest:
        if letter != "\\":
            plain += letter
            continue
        escape = next(rest, "")
        if escape not in LETTERS[version]:
            raise BadStreamError
        plain += LETTERS[version][escape]
    return plain


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadStreamError from None
