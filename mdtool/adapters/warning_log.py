"""The warnings of a stream on the log."""

from __future__ import annotations

import logging
from collections import Counter

from mdtool.core.records import Records
from mdtool.core.stream_warnings import KINDS, StreamWarning, warnings_in
from mdtool.core.units import UNDEF_TIMESTAMP, format_time

log = logging.getLogger(__name__)


class WarningLog:
    """Counts the warnings of a stream by kind.

    Parameters
    ----------
    name : str
        Of the stream.
    is_endless : bool
        Whether to log the first of each kind at once: nobody knows when the stream ends.

    Attributes
    ----------
    counts : Counter of str
        How many there were of each kind.
    """

    def __init__(self, name: str, is_endless: bool) -> None:
        self._name = name
        self._is_endless = is_endless
        self.counts: Counter[str] = Counter()
        self._is_reported = False
        self._first: dict[str, StreamWarning] = {}

    def take(self, records: Records) -> None:
        """Take the stream's next records of one rtype."""
        for warning in warnings_in(records):
            self.counts[warning.kind] += 1
            if warning.kind not in self._first:
                self._first[warning.kind] = warning
                if self._is_endless:
                    log.warning("%s: the stream warns: %s", self._name, _described(warning))

    def report(self) -> None:
        """Log how many there were, once."""
        if self.counts and not self._is_reported:
            self._is_reported = True
            counts = [
                f"{self.counts[kind]} {kind}: {_described(self._first[kind])}"
                for kind in KINDS
                if self.counts[kind]
            ]
            log.warning("%s: the stream may lack records: %s", self._name, "; ".join(counts))


def _described(warning: StreamWarning) -> str:
    return f"{warning} at {format_time(warning.ts_ns & UNDEF_TIMESTAMP)}"
