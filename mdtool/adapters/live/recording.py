"""Raw messages of a source in files, a line each: stored as they come, and run again.

A line has three columns, separated by tabs: when, in nanoseconds since the epoch; `source`,
`opened`, `message` or `lost`; and the source's name and symbols, nothing, the message, or the
reason. `grep message FILE | cut -f3 | jq` shows the messages.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Final, TypeAlias

from mdtool.adapters.live.connections import Connections
from mdtool.adapters.live.event_stream import EventStream
from mdtool.adapters.live.port import Request, Session
from mdtool.core.errors import InputError, OutputError

_SUFFIX: Final = ".tsv"
_SOURCE: Final = "source"
_OPENED: Final = "opened"
_MESSAGE: Final = "message"
_LOST: Final = "lost"
_BREAKS: Final = str.maketrans("\t\r\n", "   ")
"""In JSON these stand between values only, as spaces do."""
_CHUNK_LINES: Final = 4096


class Recorder:
    """Writes the messages of one run to a new file of a folder, each at once.

    Parameters
    ----------
    folder : str
        Empty to write nothing.
    source : str
    symbols : sequence of str
    start_ns : int
        When the run begins.

    Raises
    ------
    OutputError
        When the file cannot be made, or written.
    """

    def __init__(self, folder: str, source: str, symbols: Sequence[str], start_ns: int) -> None:
        self._file: IO[str] | None = None
        if not folder:
            return
        begun = time.strftime("%Y%m%dT%H%M%S", time.gmtime(start_ns // 10**9))
        self._path = Path(folder) / f"{source}-{begun}-{start_ns % 10**9:09d}{_SUFFIX}"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x", encoding="utf-8", buffering=1)
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}") from error
        self._write(_SOURCE, start_ns, " ".join([source, *symbols]))

    def opened(self, ts_ns: int) -> None:
        """Note a new connection."""
        self._write(_OPENED, ts_ns, "")

    def received(self, ts_ns: int, text: str) -> None:
        """Store a message."""
        self._write(_MESSAGE, ts_ns, text)

    def lost(self, ts_ns: int, reason: str) -> None:
        """Note the end of a connection."""
        self._write(_LOST, ts_ns, reason)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, kind: str, ts_ns: int, text: str) -> None:
        if self._file is not None:
            try:
                self._file.write(f"{ts_ns}\t{kind}\t{text.translate(_BREAKS)}\n")
            except OSError as error:
                raise OutputError(f"{self._path}: {error.strerror}") from error


_Line: TypeAlias = tuple[int, str, str]
"""When, what it is, and its text."""


class RecordedSource:
    """A source whose messages are read from a folder, as fast as they can be.

    Several files are run in the order of their names, as if the connection had been lost between.

    Parameters
    ----------
    kind : type of Session
    request : Request
        Its symbols are those of the first file where there are none.
    folder : str

    Raises
    ------
    InputError
        When the folder has no recording of the source.
    """

    def __init__(self, kind: type[Session], request: Request, folder: str) -> None:
        self.name = f"{folder} ({kind.name})"
        paths = sorted(Path(folder).glob(f"{kind.name}-*{_SUFFIX}"))
        if not paths:
            raise InputError(f"{folder}: has no recording of {kind.name}")
        self._lines = _lines(paths)
        start_ns, _, begin = next(self._lines)
        symbols = request.symbols or begin.split(" ")[1:]
        config = request.config
        self._connections = Connections(kind, Request(symbols, config, request.keys))
        self._stream = EventStream(kind, config, start_ns)
        self.counts: Counter[str] = self._stream.counts
        self._is_ended = False

    def read(self, n_bytes: int) -> bytes:
        """As `LiveSource.read`."""
        return self._stream.read(n_bytes, self._take_lines)

    def end(self) -> None:
        """As `LiveSource.end`."""
        self._is_ended = True

    def close(self) -> None:
        """As `LiveSource.close`."""
        self._lines.close()

    def _take_lines(self) -> bool:
        """Take the next lines; return whether there were any."""
        if self._is_ended:
            return False
        connections, add = self._connections, self._stream.add
        n = 0
        for n, (ts_ns, kind, text) in enumerate(self._lines, 1):
            if kind == _MESSAGE:
                add(connections.received(text), ts_ns)
            elif kind == _LOST:
                add(connections.lost(text), ts_ns)
            elif kind == _OPENED:
                add(connections.opened(), ts_ns)
            else:
                add(connections.lost("the recording ended, and another one began"), ts_ns)
            if n == _CHUNK_LINES:
                break
        return n > 0


def _lines(paths: list[Path]) -> Generator[_Line]:
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    try:
                        when, kind, text = line[:-1].split("\t", 2)
                        ts_ns = int(when)
                    except ValueError:
                        raise InputError(f"{path}: line {number} is not of a recording") from None
                    yield ts_ns, kind, text
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8") from error
