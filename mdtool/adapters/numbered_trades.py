"""The trades of a DBN stream with their places in it, and a name that the stream gives itself."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.dtypes import TRADE
from mdtool.core.errors import CorruptStreamError
from mdtool.core.records import Records, has_trades, trades_of

NUMBERED: Final = np.dtype([*TRADE.descr, ("stream", "<u4"), ("number", "<i8")])
"""A trade, the number of its stream among several, and its place in that stream, from 0."""

FIRST_TRADES: Final = 16
"""By which a stream is known; there may be fewer in all."""
_DIGEST_BYTES: Final = 8
_CONTENT: Final = ("ts_event", "ts_recv", "sequence", "price", "size", "side")


class NumberedTrades(DerivedSource):
    """The trades of a stream, numbered whatever is selected of them later.

    Parameters
    ----------
    source : RecordSource
        Its trades, and the `T` records of its MBO and MBP, are taken; what a live stream says of
        itself is passed on. Closed together with this one.
    stream : int
        What `stream` is in the records.
    """

    def __init__(self, source: RecordSource, stream: int) -> None:
        super().__init__(source)
        self._stream = stream
        self._records = iter(source)
        self._held: list[Records] = []
        self._numbered = 0
        self._break: CorruptStreamError | None = None
        """What ended the stream while its first trades were waited for."""

    def digests(self) -> list[str]:
        """Wait for the first trades, and return names by the first one, the first two and so on.

        Each is of 16 hexadecimal digits, which are the same for the same trades in DBN of any
        version, compressed or not, and however they come. The last one tells most; those before
        it are what a beginning of the stream had as its last one. To be called before the first
        record is taken; where the stream breaks off, the iteration raises it.
        """
        digest = hashlib.blake2b(self.metadata.dataset.encode(), digest_size=_DIGEST_BYTES)
        found: list[str] = []
        while len(found) < FIRST_TRADES:
            try:
                records = next(self._records, None)
            except CorruptStreamError as error:
                self._break = error
                break
            if records is None:
                break
            taken = self._taken(records)
            self._held.append(taken)
            if taken.dtype == NUMBERED:
                part = taken[: FIRST_TRADES - len(found)]
                indices, table = self.symbology.symbols_of(part)
                for trade, index in zip(part, indices.tolist(), strict=True):
                    digest.update(f"{table[index]}\n".encode())
                    digest.update(b"".join(trade[name].tobytes() for name in _CONTENT))
                    found.append(digest.hexdigest())
        return found or [digest.hexdigest()]

    def __iter__(self) -> Iterator[Records]:
        held, self._held = self._held, []
        for records in itertools.chain(held, map(self._taken, self._records)):
            if len(records):
                yield records
        if self._break is not None:
            raise self._break

    def _taken(self, records: Records) -> Records:
        """Return the trades among records as NUMBERED; what are none stay as they are."""
        if not has_trades(records.dtype):
            return records
        trades = trades_of(records)
        numbered = np.empty(len(trades), NUMBERED)
        for name in TRADE.names or ():
            numbered[name] = trades[name]
        numbered["stream"] = self._stream
        numbered["number"] = np.arange(self._numbered, self._numbered + len(trades))
        self._numbered += len(trades)
        return numbered
