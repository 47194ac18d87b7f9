"""Recordings whose times are moved, so that they are as live ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mdtool.adapters.dbn_files import Recording
from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.batch import Batch
from mdtool.wire.dbn_records import CONTROL_RTYPES, shifted

_NOT_KNOWN: Final = None


@dataclass(slots=True)
class Rebase:
    """How far times are moved: so that one moment of a recording is now.

    Attributes
    ----------
    moment_ns : int or None
        The moment; None for the first record.
    offset_ns : int or None
        None before the first record of a recording whose first time is not known.
    """

    moment_ns: int | None = None
    offset_ns: int | None = field(default=_NOT_KNOWN)

    def begin(self, ts_ns: int | None) -> None:
        """Let the moment be now, if it is known; by default it is the time of a first record."""
        moment_ns = ts_ns if self.moment_ns is None else self.moment_ns
        if self.offset_ns is None and moment_ns is not None and moment_ns >= 0:
            self.offset_ns = time.time_ns() - moment_ns


@dataclass(frozen=True, slots=True)
class RebasedRecording:
    """A recording with moved times. Its instruments are those of the times before.

    Attributes
    ----------
    recording : Recording
    rebase : Rebase
        Shared by all that open it.
    """

    recording: Recording
    rebase: Rebase

    def open(self) -> RecordSource:
        """As `Recording.open`."""
        source = self.recording.open()
        self.rebase.begin(source.begin_ns)
        return _RebasedSource(source, self.rebase)

    def identity(self) -> str:
        """As `Recording.identity`."""
        return self.recording.identity()


class _RebasedSource(DerivedSource):
    def __init__(self, source: RecordSource, rebase: Rebase) -> None:
        super().__init__(source)
        self._rebase = rebase

    @property
    def begin_ns(self) -> int | None:
        begin_ns, offset_ns = self._source.begin_ns, self._rebase.offset_ns
        return None if begin_ns is None or offset_ns is None else begin_ns + offset_ns

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            if self._rebase.offset_ns is None and batch.rtype not in CONTROL_RTYPES:
                self._rebase.begin(int(batch.index_timestamps[0]))
            offset_ns = self._rebase.offset_ns or 0
            yield batch.with_records(shifted(batch.records, offset_ns))
