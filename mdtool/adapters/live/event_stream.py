"""The events of a source as a DBN stream that is read in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from mdtool.adapters.live.config import REGULAR, SourceConfig
from mdtool.adapters.live.port import Session
from mdtool.wire.source_stream import Event, SourceEncoder


class EventStream:
    """The bytes of a source's events.

    Parameters
    ----------
    kind : type of Session
    config : SourceConfig
    start_ns : int
        When the stream begins.

    Attributes
    ----------
    counts : Counter of str
        As `SourceEncoder.counts`.
    """

    def __init__(self, kind: type[Session], config: SourceConfig, start_ns: int) -> None:
        self._encoder = SourceEncoder(
            kind.dataset,
            start_ns,
            kind.instrument_class,
            config.lots(),
            config.conditions == REGULAR,
        )
        self.counts: Counter[str] = self._encoder.counts
        self._data = self._encoder.take()

    def add(self, events: Iterable[Event], ts_ns: int) -> None:
        """Take the events of one message, and when it came."""
        self._encoder.add(events, ts_ns)

    def read(self, n_bytes: int, wait: Callable[[], bool]) -> bytes:
        """Return bytes, at most so many; none at the end.

        Parameters
        ----------
        n_bytes : int
        wait : callable
            Waits for events and adds them; returns False where no more come.
        """
        while not self._data and wait():
            self._data = self._encoder.take()
        data, self._data = self._data[:n_bytes], self._data[n_bytes:]
        return data
