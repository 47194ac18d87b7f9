"""A synthetic exchange as a source of records, in the place of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from mdtool.adapters.dbn_source import ClosesOnExit
from mdtool.core.batch import Batch, Resolver
from mdtool.core.instruments import Instruments
from mdtool.core.records import index_timestamps
from mdtool.engine.market_faults import FaultyMarket
from mdtool.engine.simulate import Exchange
from mdtool.engine.simulate_defaults import DATASET, END_NS
from mdtool.wire.dbn_metadata import make_metadata

CHUNK_RECORDS: Final = 1 << 16
"""Order book records generated at a time, in a few milliseconds."""
PACED_CHUNK_RECORDS: Final = 1 << 10
"""Order book records at a time of a paced market, of which less is generated ahead."""


class SimulatedSource(ClosesOnExit):
    """The records of a synthetic exchange, from its current time on, with or without an end.

    Parameters
    ----------
    exchange : Exchange
    schema : str
        `mbo`, `trades` or `mbp-1`.
    duration_ns : int, optional
        Events that do not end within this time of the exchange's start are left out.
    chunk_records : int
        For how many order book records the exchange runs for each array.
    faults : FaultyMarket, optional
        What puts faults into the records.

    Raises
    ------
    UsageError
        When iterated, if there is no such schema.
    """

    name = "simulation"
    size_bytes = None
    bytes_read = 0
    is_ordered = True
    begin_ns = None

    def __init__(
        self,
        exchange: Exchange,
        schema: str = "mbo",
        duration_ns: int | None = None,
        chunk_records: int = CHUNK_RECORDS,
        faults: FaultyMarket | None = None,
    ) -> None:
        self._exchange = exchange
        self._schema = schema
        self._chunk_records = chunk_records
        self._faults = faults
        end_ns = None if duration_ns is None else min(exchange.start_ns + duration_ns, END_NS)
        self._end_ns = end_ns or END_NS
        self.metadata = make_metadata(
            DATASET, schema, exchange.start_ns, end_ns, exchange.instruments
        )
        self.instruments = Instruments()
        self._resolver = Resolver(self.instruments, self.name, self.metadata)

    def __iter__(self) -> Iterator[Batch]:
        is_over = False
        while not is_over:
            records = self._exchange.generate(self._chunk_records, self._schema)
            n = int(np.searchsorted(index_timestamps(records), self._end_ns))
            is_over = n < len(records)
            if is_over:
                # The records of an event share its time: one that would be cut is left out.
                n = int(np.searchsorted(records["ts_event"], records["ts_event"][n]))
            records = records[:n]
            if self._faults is not None:
                records = self._faults.apply(records)
                if is_over:
                    self._faults.finish()
            if len(records):
                yield self._resolver.batch(records)
