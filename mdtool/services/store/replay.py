"""The trades of a store as a stream of DBN, in order of exchange time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mdtool.adapters.datasets.dbn import DATASET, TRADES, check_volumes, trade_records
from mdtool.adapters.dbn_source import ClosesOnExit
from mdtool.core.batch import Batch, Resolver
from mdtool.core.errors import InputError
from mdtool.core.instruments import Instruments
from mdtool.services.store.export import StoredTrades
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.lot_definitions import lot_definition


class StoredSource(ClosesOnExit):
    """Stored trades as records: a `RecordSource`.

    `ts_recv`, DBN's index timestamp, is the exchange time too, so that the stream is in order of
    it: trades are replayed as they happened, not as they arrived.

    Parameters
    ----------
    name : str
        What messages call the store.
    trades : StoredTrades

    Raises
    ------
    InputError
        When there are none.
    """

    size_bytes = None
    bytes_read = 0
    is_ordered = True

    def __init__(self, name: str, trades: StoredTrades) -> None:
        self.name = name
        self._trades = trades
        self.begin_ns = trades.first_ns()
        if self.begin_ns is None:
            raise InputError(f"{name}: has no such trades")
        named = dict(enumerate(trades.symbols, start=1))
        lots = trades.symbols.fractions()
        end_ns = max(trades.last_ns, self.begin_ns) + 1
        schema = None if lots else TRADES
        self.metadata = make_metadata(DATASET, schema, self.begin_ns, end_ns, named)
        self.instruments = Instruments()
        self.instruments.give_lots(
            name,
            lots,
            {
                symbol: lot_definition(number, symbol, lots[symbol], self.begin_ns)
                for number, symbol in named.items()
                if symbol in lots
            },
        )
        self._resolver = Resolver(self.instruments, name, self.metadata)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._trades.by_time():
            check_volumes(self.name, rows, "`store export` as parquet has any volume")
            trades = replace(rows.trades, ts_recv=rows.trades.ts_event)
            yield self._resolver.batch(trade_records(trades, trades.symbol + np.uint32(1)))
