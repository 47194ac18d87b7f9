"""The records of a stream that came last, for all who are only a little behind."""

from __future__ import annotations

from bisect import bisect_right

from mdtool.core.records import Records


class Recent:
    """Keeps the last arrays of a stream, up to a bound.

    Parameters
    ----------
    limit_bytes : int
        When there is more, the oldest arrays go; the last one stays, whatever its size.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._arrays: list[Records] = []
        self._begins: list[int] = []
        self._kept_bytes = 0
        self._end = 0

    def append(self, records: Records) -> None:
        """Keep the next records of the stream."""
        self._begins.append(self._end)
        self._arrays.append(records)
        self._end += len(records)
        self._kept_bytes += records.nbytes
        n_old = 0
        while self._kept_bytes > self._limit_bytes and n_old < len(self._arrays) - 1:
            self._kept_bytes -= self._arrays[n_old].nbytes
            n_old += 1
        del self._arrays[:n_old], self._begins[:n_old]

    def read(self, position: int) -> Records | None:
        """Return records from a position before the end on, None where they are not kept any more.

        These are some of those there are, at least one.
        """
        at = bisect_right(self._begins, position) - 1
        if at < 0:
            return None
        return self._arrays[at][position - self._begins[at] :]
