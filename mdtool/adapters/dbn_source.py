"""Streams of DBN records to read from: the port, and the one for files and pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Protocol, Self

import databento_dbn as dbn

from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from mdtool.core.records import Records
from mdtool.core.symbology import Symbology
from mdtool.wire.dbn import DbnDecoder

Read = Callable[[int], bytes]
"""Waits for bytes and returns those that have come, at most so many; none at the end."""

FIRST_CHUNK_BYTES: Final = 1 << 16
"""Small, for what it holds is kept until the first records are asked for."""
PLAIN_CHUNK_BYTES: Final = 1 << 20
ZSTD_CHUNK_BYTES: Final = 1 << 17
"""Market data shrinks to a fifth or less: this much compressed is some 20,000 records."""


class RecordSource(Protocol):
    """Records in the order of their stream, in arrays as large as what has arrived."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def metadata(self) -> dbn.Metadata:
        """Known as soon as the source is."""
        ...

    @property
    def symbology(self) -> Symbology:
        """The metadata's mappings, and those of mapping records once these were yielded."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """How many bytes there are to read in all, None where that is not known."""
        ...

    @property
    def bytes_read(self) -> int:
        """How many of them have been read."""
        ...

    def __iter__(self) -> Iterator[Records]:
        """Yield structured arrays, each of one rtype, read-only, never empty."""
        ...

    def close(self) -> None:
        """Let go of files. What was yielded stays valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ClosesOnExit:
    """Gives a source with `close` its `with` block."""

    def close(self) -> None:
        """Let go of what the source holds open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DbnSource(ClosesOnExit):
    """The records of one DBN stream, v1 to v3, zstd or not, read through `read`.

    The metadata is read when the source is made. Memory stays flat whatever the stream's length.

    Parameters
    ----------
    name : str
    read : callable
    close : callable
        Called once the source is closed, or could not be made.
    size_bytes : int, optional

    Raises
    ------
    InputError
        When the stream is no DBN. Iterating raises CorruptStreamError where it breaks off, after
        every whole record before that has been yielded.
    """

    def __init__(
        self, name: str, read: Read, close: Callable[[], None], size_bytes: int | None = None
    ) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.bytes_read = 0
        self._read = read
        self._close = close
        self._decoder = DbnDecoder(name)
        self._first: list[Records] = []
        try:
            self.metadata = self._read_metadata()
        except BaseException:
            close()
            raise
        self.symbology = Symbology(self.metadata)

    def __iter__(self) -> Iterator[Records]:
        runs, self._first = self._first, []
        yield from self._learnt(runs)
        chunk = ZSTD_CHUNK_BYTES if self._decoder.is_compressed else PLAIN_CHUNK_BYTES
        while data := self._receive(chunk):
            yield from self._learnt(self._decoder.feed(data))
        self._decoder.finish()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._close()

    def _read_metadata(self) -> dbn.Metadata:
        while (metadata := self._decoder.metadata) is None:
            data = self._receive(FIRST_CHUNK_BYTES)
            if not data:
                self._decoder.finish()
            self._first += self._decoder.feed(data)
        return metadata

    def _receive(self, n_bytes: int) -> bytes:
        data = self._read(n_bytes)
        self.bytes_read += len(data)
        return data

    def _learnt(self, runs: list[Records]) -> Iterator[Records]:
        for records in runs:
            if records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
                self.symbology.learn(records)
            yield records
