"""The bytes of a DBN file as they are in it, of which so many records are read."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Final

from mdtool.adapters.byte_source import open_bytes
from mdtool.adapters.dbn_source import ZSTD_CHUNK_BYTES
from mdtool.core.errors import CorruptStreamError
from mdtool.wire.dbn import DbnDecoder, Run

_MAX_BYTES: Final = 1 << 18


class DbnBytes:
    """The header and the records of one file, decompressed but otherwise as they are in it.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    records : int
        How many have been read, those of unknown rtypes apart.

    Raises
    ------
    InputError
        When it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.records = 0
        self._source = open_bytes(path)
        self._pieces = self._source.decompressed(ZSTD_CHUNK_BYTES)
        self._decoder = DbnDecoder(path)
        self._runs: deque[Run] = deque()
        self._held = b""
        self._offset = 0
        """Of the first byte that is held."""
        self._end = 0
        """The offset up to which bytes may be read."""
        self._is_at_end = False

    @property
    def version(self) -> int:
        """The DBN version, once something was read."""
        return self._decoder.version

    @property
    def has_ts_out(self) -> bool:
        """Whether records end with the time at which they were sent, once something was read."""
        return self._decoder.metadata is not None and self._decoder.metadata.ts_out

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def read(self, n_records: int | None) -> bytes:
        """Return some of the next bytes, none where there are no more up to there.

        Parameters
        ----------
        n_records : int or None
            Up to the end of so many records of known rtypes, counted from the first of the file: 0
            for the header. None for all there is, also what cannot be decoded.

        Raises
        ------
        InputError
            When the file cannot be read. One that breaks off ends with its last whole record.
        """
        while True:
            self._advance(n_records)
            if self._end > self._offset:
                n_bytes = min(self._end - self._offset, _MAX_BYTES)
                data, self._held = self._held[:n_bytes], self._held[n_bytes:]
                self._offset += n_bytes
                return data
            if self._is_at_end or (n_records is not None and self._has(n_records)):
                return b""
            self._receive()

    def _has(self, n_records: int) -> bool:
        """Return whether so many records have been received."""
        return self._decoder.metadata is not None and self._decoder.records >= n_records

    def _receive(self) -> None:
        data = next(self._pieces, None)
        self._is_at_end = data is None
        if data is not None:
            self._held += data
            # Whoever decodes the file for its records says what is wrong with it.
            with contextlib.suppress(CorruptStreamError):
                self._runs += self._decoder.decode(data)

    def _advance(self, n_records: int | None) -> None:
        """Let bytes be read up to the end of so many records."""
        if self._decoder.metadata is not None and not self._end:
            self._end = self._runs[0].offset if self._runs else self._decoder.offset
        while self._runs:
            run = self._runs[0]
            n_wanted = len(run.records)
            if n_records is not None:
                n_wanted = min(n_records - run.before, n_wanted)
            if n_wanted <= 0:
                break
            self._end = run.offset + n_wanted * run.record_bytes
            self.records = run.before + n_wanted
            if n_wanted < len(run.records):
                break
            self._runs.popleft()
        if n_records is None:
            self._end = self._offset + len(self._held)
