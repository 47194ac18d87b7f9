"""The ticks to send: of DBN, JSON lines or a simulated market, paced, and encoded as frames."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.byte_source import open_bytes
from mdtool.adapters.dbn_files import dbn_files, open_merged, read_dbn
from mdtool.adapters.dbn_select import TRADES, Selection, selected, trades_in
from mdtool.adapters.json_lines import JsonLines, is_json_lines
from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.simulated import CHUNK_RECORDS, PACED_CHUNK_RECORDS, SimulatedSource
from mdtool.adapters.tick_source import DbnTicks, TickSource
from mdtool.core.config import load
from mdtool.core.errors import UsageError
from mdtool.core.trades import NamedTrades
from mdtool.core.units import NS_PER_S, counted
from mdtool.engine.pacing import Pacer
from mdtool.engine.simulate import Exchange
from mdtool.engine.simulate_defaults import EVENTS_PER_TRADE
from mdtool.services.live_source import open_measured
from mdtool.services.send.quotes import QuotePort
from mdtool.wire.tick_encoder import EncodedFrames, encode_frames

log = logging.getLogger(__name__)

_TOPS: Final = "mbp-1"
_COLLECT_NS: Final = 1_000_000
_BUSY_NS: Final = 4_000_000
"""How long after a range the next ticks are soon enough to be collected."""
_DIGEST_BYTES: Final = 16
_READ_BYTES: Final = 1 << 20
_FEW_TICKS: Final = 256
"""Batches shorter than this are encoded with the symbols they have, not with all there are."""


def open_ticks(
    paths: Sequence[str],
    selection: Selection | None = None,
    is_strict: bool = False,
    schema: str | None = None,
    *,
    any_price: bool = False,
    quotes: QuotePort | None = None,
) -> TickSource:
    """Open files, or standard input for `-`, as ticks in order of time.

    Parameters
    ----------
    paths : sequence of str
        DBN files, folders or zips of them, merged by their index timestamp, or a single file of
        JSON lines.
    selection : Selection, optional
        Which symbols and times of DBN to send.
    is_strict : bool
        Whether JSON lines end at the first that is not a tick.
    schema : str, optional
        The only schema of DBN to take trades of.
    any_price : bool
        Whether to send prices of 0 and below too.
    quotes : QuotePort, optional
        Where the quotes of a single DBN file are streamed, of all its symbols.

    Raises
    ------
    UsageError
        When standard input is named twice, part of JSON lines is selected, or quotes are to be
        streamed of several files.
    InputError
        When a file cannot be read, or holds no trades.
    """
    files = dbn_files(paths)
    if len(files) > 1:
        if quotes is not None:
            raise UsageError("--quotes-at: quotes are streamed of one INPUT only")
        merged = trades_in(open_merged(files, schema or TRADES))
        return DbnTicks(selected(merged, selection), any_price=any_price)
    source = open_bytes(files[0])
    if not is_json_lines(source):
        records = read_dbn(source)
        trades = trades_in(records if quotes is None else quotes.watch(records), schema)
        return DbnTicks(selected(trades, selection), any_price=any_price)
    if selection is not None or schema is not None:
        source.close()
        raise UsageError("symbols, times and schemas are selected of DBN, not of JSON lines")
    return JsonLines(source, is_strict, any_price=any_price)


def live_ticks(
    source: str,
    symbols: Sequence[str],
    *,
    any_price: bool = False,
    quotes: QuotePort | None = None,
) -> TickSource:
    """Return the trades of a live source as ticks, whose volumes are whole lots.

    Parameters
    ----------
    source, symbols
        As of `open_measured`; its settings are those of `[ingest]`.
    any_price, quotes
        As of `open_ticks`.

    Raises
    ------
    UsageError, InputError, OutputError
        As `open_measured`.
    """
    records = open_measured(source, symbols, load(SourceConfig, "ingest", {}))
    trades = trades_in(records if quotes is None else quotes.watch(records))
    return DbnTicks(trades, any_price=any_price)


def content_stream_id(
    paths: Sequence[str],
    selection: Selection | None = None,
    schema: str | None = None,
    *,
    any_price: bool = False,
) -> str:
    """Return the stream id of files by their content: the same whatever their names are.

    Parameters
    ----------
    paths : sequence of str
        Files, whose bytes are all read.
    selection, schema, any_price
        What is sent of them, as of `open_ticks`: another selection is another stream.

    Raises
    ------
    UsageError
        When one is not a file, such as standard input.
    InputError
        When one cannot be read.
    """
    chosen = f"{selection} {any_price}" if schema is None else f"{selection} {any_price} {schema}"
    digest = hashlib.blake2b(chosen.encode(), digest_size=_DIGEST_BYTES)
    for path in dbn_files(paths):
        with contextlib.closing(open_bytes(path)) as source:
            if source.size_bytes is None:
                raise UsageError(f"{path}: only files are recognised by their content")
            digest.update(source.size_bytes.to_bytes(8, "big"))
            while data := source.read(_READ_BYTES):
                digest.update(data)
    return f"file-{digest.hexdigest()}"


def simulate_ticks(
    symbols: Sequence[str], seed: int, rate: float, quotes: QuotePort | None = None
) -> TickSource:
    """Return the trades of a synthetic exchange, which never ends.

    Parameters
    ----------
    symbols : sequence of str
        The instruments.
    seed : int
        The same for the same trades.
    rate : float
        Trades a second of a market that runs from now on, to be sent at its own pace; 0 for a
        market of a fixed past, to be sent flat out.
    quotes : QuotePort, optional
        Where the exchange's quotes are streamed.

    Raises
    ------
    UsageError
        When the exchange cannot have these settings.
    """
    if rate:
        exchange = Exchange(symbols, seed, rate * EVENTS_PER_TRADE, time.time_ns())
        chunk_records = PACED_CHUNK_RECORDS
    else:
        exchange, chunk_records = Exchange(symbols, seed), CHUNK_RECORDS
    if quotes is None:
        return DbnTicks(SimulatedSource(exchange, TRADES, None, chunk_records))
    return DbnTicks(quotes.watch(SimulatedSource(exchange, _TOPS, None, chunk_records)))


def report_left_out(ticks: TickSource, *, any_price: bool) -> None:
    """Log how many trades of a source could not be sent, if there were any."""
    if ticks.left_out:
        log.warning(
            "%s: left out %s without a %s, a size or a time",
            ticks.name,
            counted(ticks.left_out, "trade"),
            "price" if any_price else "price above 0",
        )


def limited(batches: Iterable[NamedTrades], limit: int) -> Iterator[NamedTrades]:
    """Yield the first `limit` ticks."""
    left = limit
    for batch in batches:
        if len(batch) >= left:
            yield batch[:left]
            return
        yield batch
        left -= len(batch)


def tick_pacer(speed: float, *, is_of_now: bool = False) -> Pacer:
    """Return the pacer of ticks.

    Parameters
    ----------
    speed : float
        Multiple of the ticks' own pace, 0 for flat out.
    is_of_now : bool
        Whether each tick is due at its own time by this machine's clock: a market that runs now.
    """
    pacer = Pacer(speed)
    if is_of_now and speed:
        pacer.start(time.time_ns(), time.monotonic_ns())
    return pacer


async def paced(
    batches: AsyncIterator[NamedTrades], pacer: Pacer, rate: float = 0.0
) -> AsyncIterator[EncodedFrames]:
    """Yield ticks as frames when they are due: whatever is due together, together.

    A batch is encoded as a whole before that: 64 ticks take twice as long as one.

    Parameters
    ----------
    batches : asynchronous iterator of NamedTrades
    pacer : Pacer
    rate : float
        Where given, ticks a second at even distances, whatever their own times.
    """
    count = 0
    async for batch in batches:
        due_ns = _evenly(count, len(batch), rate) if rate else batch.trades.ts_recv
        count += len(batch)
        frames = encoded(batch)
        n_due = pacer.due(due_ns, time.monotonic_ns())
        if n_due:
            yield frames[:n_due]
        async for begin, end in _due(due_ns, n_due, pacer):
            yield frames[begin:end]


async def _due(
    due_ns: NDArray[np.int64], begin: int, pacer: Pacer
) -> AsyncIterator[tuple[int, int]]:
    """Yield the ranges of ticks that are due together, from one on, when they are.

    After a range that was sent a moment ago, ticks are collected for a millisecond: each write
    wakes all who read it.
    """
    if begin == len(due_ns):
        return
    # As a list: most ranges are of one tick, which numpy would take ten times as long to find.
    times_ns: list[int] = np.maximum.accumulate(due_ns).tolist()
    busy_until_ns = 0
    while begin < len(times_ns):
        now_ns = time.monotonic_ns()
        reached_ns = pacer.reached_ns(now_ns)
        end = len(times_ns) if reached_ns is None else bisect_right(times_ns, reached_ns, begin)
        if end > begin:
            yield begin, end
            begin, busy_until_ns = end, now_ns + _BUSY_NS
        else:
            wait_ns = pacer.wait_ns(times_ns[begin], now_ns)
            if now_ns + wait_ns < busy_until_ns:
                wait_ns += _COLLECT_NS
            await asyncio.sleep(wait_ns / NS_PER_S)


def encoded(batch: NamedTrades) -> EncodedFrames:
    """Return a batch as Tick frames."""
    symbols, trades = batch.symbols, batch.trades
    columns = (trades.price, trades.size, trades.ts_event)
    if len(trades) < _FEW_TICKS < len(symbols):
        used, symbol = np.unique(trades.symbol, return_inverse=True)
        return encode_frames([symbols[index] for index in used], symbol, *columns)
    return encode_frames(list(symbols), trades.symbol, *columns)


def _evenly(first: int, count: int, rate: float) -> NDArray[np.int64]:
    return (np.arange(first, first + count) * (NS_PER_S / rate)).astype(np.int64)
