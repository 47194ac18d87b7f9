"""What there is to send: DBN, JSON lines, or the trades of a simulated market."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mdtool.adapters.byte_source import open_bytes
from mdtool.adapters.dbn_files import open_merged, read_dbn
from mdtool.adapters.dbn_select import SchemaSource, Selection, selected
from mdtool.adapters.json_lines import JsonLines, is_json_lines
from mdtool.adapters.simulated import CHUNK_RECORDS, PACED_CHUNK_RECORDS, SimulatedSource
from mdtool.adapters.tick_source import DbnTicks, TickSource
from mdtool.core.errors import UsageError
from mdtool.core.trades import NamedTrades
from mdtool.engine.simulate import Exchange
from mdtool.engine.simulate_defaults import EVENTS_PER_TRADE

_TRADES: Final = "trades"


def open_ticks(paths: Sequence[str], selection: Selection | None = None) -> TickSource:
    """Open files, or standard input for `-`, as ticks in order of time.

    Parameters
    ----------
    paths : sequence of str
        DBN files, merged by their index timestamp, or a single one of JSON lines.
    selection : Selection, optional
        Which symbols and times of DBN are wanted.

    Raises
    ------
    UsageError
        When standard input is named twice, or part of JSON lines is selected.
    InputError
        When a file cannot be read, or holds no trades.
    """
    if len(paths) > 1:
        return DbnTicks(selected(open_merged(paths, _TRADES), selection))
    source = open_bytes(paths[0])
    if not is_json_lines(source):
        return DbnTicks(selected(SchemaSource(read_dbn(source), _TRADES), selection))
    if selection is not None:
        source.close()
        raise UsageError("symbols and times are selected of DBN, not of JSON lines")
    return JsonLines(source)


def simulate_ticks(symbols: Sequence[str], seed: int, rate: float) -> TickSource:
    """Return the trades of a synthetic exchange, which never ends.

    Parameters
    ----------
    symbols : sequence of str
        The instruments.
    seed : int
        The same for the same trades.
    rate : float
        Trades a second of a market that runs from now on, to be sent at its own pace. 0 is for a
        market of a fixed past, to be sent flat out.

    Raises
    ------
    UsageError
        When the exchange cannot be so.
    """
    if rate:
        exchange = Exchange(symbols, seed, rate * EVENTS_PER_TRADE, time.time_ns())
        chunk_records = PACED_CHUNK_RECORDS
    else:
        exchange, chunk_records = Exchange(symbols, seed), CHUNK_RECORDS
    return DbnTicks(SimulatedSource(exchange, _TRADES, None, chunk_records))


def limited(batches: Iterable[NamedTrades], limit: int) -> Iterator[NamedTrades]:
    """Yield the first `limit` ticks."""
    left = limit
    for batch in batches:
        if len(batch) >= left:
            yield batch[:left]
            return
        yield batch
        left -= len(batch)
