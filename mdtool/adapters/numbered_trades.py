"""The trades of a DBN stream with their places in it, and a digest that identifies the stream."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.adapters.dbn_trades import report_views
from mdtool.core.batch import Batch
from mdtool.core.dtypes import TRADE
from mdtool.core.errors import CorruptStreamError
from mdtool.core.records import has_trades
from mdtool.engine.trade_views import TradeViews

NUMBERED: Final = np.dtype([*TRADE.descr, ("stream", "<i8"), ("number", "<i8"), ("view", "<i8")])
"""A trade, the number of its stream among several, its place in that stream, from 0, and the rtype
of the record that showed it.

Of whole 64-bit words, as every layout that is merged.
"""

FIRST_TRADES: Final = 16
"""The trades that identify a stream; it may have fewer."""
_DIGEST_BYTES: Final = 8
_CONTENT: Final = ("ts_event", "ts_recv", "sequence", "price", "size", "side")


class NumberedTrades(DerivedSource):
    """The trades of a stream, numbered before anything is selected.

    Parameters
    ----------
    source : RecordSource
        Its trades, and the `T` records of its MBO and MBP, are numbered; control records of a live
        stream are passed on. Closed together with this one.
    stream : int
        The `stream` of the records.
    """

    def __init__(self, source: RecordSource, stream: int) -> None:
        super().__init__(source)
        self._stream = stream
        self._batches = iter(source)
        self._held: list[Batch] = []
        self._numbered = 0
        self._break: CorruptStreamError | None = None
        """What ended the stream before its first trades were complete."""

    def digests(self) -> list[str]:
        """Wait for the first trades; return digests of the first one, the first two and so on.

        Each has 16 hexadecimal digits, the same for the same trades in DBN of any version,
        compressed or not. The last one identifies the stream; those before it are the last ones of
        shorter versions of the stream. Called before the first iteration, which raises what breaks
        the stream.
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
        """Return the trades among records as NUMBERED, and other records as they are."""
        if not has_trades(batch.records.dtype):
            return batch
        trades = batch.trades()
        numbered = np.empty(len(trades), NUMBERED)
        for name in TRADE.names or ():
            numbered[name] = trades.records[name]
        numbered["stream"] = self._stream
        numbered["view"] = batch.rtype
        numbered["number"] = np.arange(self._numbered, self._numbered + len(trades))
        self._numbered += len(trades)
        return trades.with_records(numbered)


class CountedOnce(DerivedSource):
    """The numbered trades of several streams, each trade of the preferred stream that shows it.

    Parameters
    ----------
    source : RecordSource
        Of NUMBERED; closed together with this one.
    """

    def __init__(self, source: RecordSource) -> None:
        super().__init__(source)
        self._views = TradeViews()

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            if batch.records.dtype == NUMBERED:
                yield from self._once(batch)
            else:
                yield batch

    def close(self) -> None:
        """Close the other source, and log what was counted where there was a choice."""
        super().close()
        report_views(self.name, self._views)

    def _once(self, batch: Batch) -> Iterator[Batch]:
        view = batch.records["view"]
        edges = np.flatnonzero(view[1:] != view[:-1]) + 1
        for begin, end in itertools.pairwise([0, *edges.tolist(), len(batch)]):
            chosen = self._views.choose(batch[begin:end], int(view[begin]))
            if len(chosen):
                yield chosen
