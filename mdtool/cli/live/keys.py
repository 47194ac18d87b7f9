"""Bytes that a terminal sends turned into what they ask for."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Key(Enum):
    """What the user of the live view can ask for."""

    PAUSE = auto()
    STEP = auto()
    FASTER = auto()
    SLOWER = auto()
    REAL_TIME = auto()
    FLAT_OUT = auto()
    NEXT = auto()
    PREVIOUS = auto()
    HELP = auto()
    QUIT = auto()


_KEYS: Final = {
    b" ": Key.PAUSE,
    b"s": Key.STEP,
    b".": Key.STEP,
    b"\x1b[C": Key.STEP,
    b"+": Key.FASTER,
    b"=": Key.FASTER,
    b"\x1b[A": Key.FASTER,
    b"-": Key.SLOWER,
    b"_": Key.SLOWER,
    b"\x1b[B": Key.SLOWER,
    b"1": Key.REAL_TIME,
    b"0": Key.FLAT_OUT,
    b"n": Key.NEXT,
    b"\t": Key.NEXT,
    b"p": Key.PREVIOUS,
    b"N": Key.PREVIOUS,
    b"\x1b[Z": Key.PREVIOUS,
    b"h": Key.HELP,
    b"?": Key.HELP,
    b"q": Key.QUIT,
    b"Q": Key.QUIT,
}
_ESCAPE: Final = 0x1B
_INTRODUCERS: Final = b"[O"
_PARAMETERS: Final = range(0x20, 0x40)


class KeySplitter:
    """Cuts what a terminal sends into keys, a letter or a sequence each, however it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the keys that are complete with these bytes."""
        data = self._rest + data
        keys = []
        at = 0
        while at < len(data):
            end = _end(data, at)
            if end is None:
                break
            # Cursor keys come with O for [ where an application asked for that.
            keys.append(data[at:end].replace(b"\x1bO", b"\x1b["))
            at = end
        self._rest = data[at:]
        return keys

    def flush(self) -> list[bytes]:
        """Return what waits for more, now that nothing came for a while: the escape key, say."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class KeyDecoder:
    """Finds keys in bytes however these are cut; what stands for none is left out."""

    def __init__(self) -> None:
        self._splitter = KeySplitter()

    def feed(self, data: bytes) -> list[Key]:
        """Return the keys that are complete with these bytes."""
        return [_KEYS[key] for key in self._splitter.feed(data) if key in _KEYS]


def _end(data: bytes, at: int) -> int | None:
    """Return where the key that begins at `at` ends, None when it does not yet."""
    if data[at] != _ESCAPE:
        return at + 1
    if at + 1 == len(data):
        return None
    if data[at + 1] not in _INTRODUCERS:
        return at + 1
    end = at + 2
    while end < len(data) and data[end] in _PARAMETERS:
        end += 1
    return end + 1 if end < len(data) else None
