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
from mdtool.core.instruments import Batch
from mdtool.core.records import has_trades

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
        self._batches = iter(source)
        self._held: list[Batch] = []
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
                batch = next(self._batches, None)
            except CorruptStreamError as error:
                self._break = error
                break
            if batch is None:
                break
            taken = self._taken(batch)
            self._held.append(taken)
            if taken.records.dtype == NUMBERED:
                part = taken[: FIRST_TRADES - len(found)]
                for trade, index in zip(part.records, part.instrument.tolist(), strict=True):
                    instrument = self.instruments[index]
                    name = instrument.name or str(instrument.instrument_id)
                    digest.update(f"{name}\n".encode())
                    digest.update(b"".join(trade[name].tobytes() for name in _CONTENT))
                    found.append(digest.hexdigest())
        return found or [digest.hexdigest()]

    def __iter__(self) -> Iterator[Batch]:
        held, self._held = self._held, []
        for batch in itertools.chain(held, map(self._taken, self._batches)):
            if len(batch):
                yield batch
        if self._break is not None:
            raise self._break

    def _taken(self, batch: Batch) -> Batch:
        """Return the trades among records as NUMBERED; what are none stay as they are."""
        if not has_trades(batch.records.dtype):
            return batch
        trades = batch.trades()
        numbered = np.empty(len(trades), NUMBERED)
        for name in TRADE.names or ():
            numbered[name] = trades.records[name]
        numbered["stream"] = self._stream
        numbered["number"] = np.arange(self._numbered, self._numbered + len(trades))
        self._numbered += len(trades)
        return trades.with_records(numbered)
