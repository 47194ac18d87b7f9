"""The calls of MarketDataService, answered from the market's state."""

# ruff: noqa: N802 - calls keep the names of their contract

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, Protocol

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreError, StoreFormatError, StoreUnavailableError
from mdtool.core import tracing
from mdtool.core.errors import UsageError
from mdtool.core.permissions import STREAMS, Access, ForbiddenError, Reader
from mdtool.core.symbols import SymbolMap, SymbolTable
from mdtool.core.trades import REASONS, reasons_text
from mdtool.core.units import MIN_TIMESTAMP_NS, parse_duration
from mdtool.engine.market import Market, SequenceGapError
from mdtool.services.aggregator.committer import acknowledging
from mdtool.services.aggregator.config import calendar_advice
from mdtool.services.aggregator.live_market import LiveMarket
from mdtool.services.aggregator.markets import FrameCheck
from mdtool.services.aggregator.reads import (
    bar_columns,
    changed_bars,
    session_of,
    traded,
    updates_of,
)
from mdtool.services.aggregator.trade_publisher import BehindError, Follower
from mdtool.services.security import writable
from mdtool.wire._pb import marketdata_pb2, tick_pb2
from mdtool.wire.batches import (
    BarUpdates,
    BatchError,
    check_claim,
    check_stream,
    decode_batch,
    encode_aggregate,
    encode_bar_updates,
    encode_bars,
    encode_updates,
)
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import decode_messages

log = logging.getLogger(__name__)

_AGGREGATES: Final = "aggregates"
_BARS: Final = "bars"
_TRADES: Final = "trades"
"""Feeds, as roles name them."""
_MAX_ROWS: Final = 1 << 14
"""In one message: 2.3 MB with the longest names; gRPC clients accept 4 MB by default."""
_SAMPLE: Final = tick_pb2.Tick(symbol="A", price=1, volume=1, exchange_timestamp=MIN_TIMESTAMP_NS)


class Context(Protocol):
    """The part of gRPC's context that calls use."""

    @property
    def access(self) -> Access:
        """What the client may read and write."""
        ...

    async def spend(self, message: Message, ticks: int) -> None:
        """Count a message that the client has sent, and wait as long as its quotas say."""
        ...

    def peer(self) -> str:
        """Return the client's address."""
        ...

    async def write(self, message: Any) -> None:
        """Send a message; wait while the client is too slow."""
        ...

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Send the metadata that opens the call, before there is a message."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call."""
        ...


class MarketDataServicer:
    """Answers the calls of MarketDataService.

    Readers are answered by `context.write`, not by `yield`: when a client vanishes, a coroutine
    ends at once, an asynchronous generator only when it is collected.

    Parameters
    ----------
    live : LiveMarket
        The market, which the calls read and change.
    max_symbols : int
        How many symbols clients of `StreamTicks` may bring.
    any_price : bool
        Whether these may bring prices of 0 and below.
    """

    def __init__(self, live: LiveMarket, max_symbols: int, *, any_price: bool = False) -> None:
        self._live = live
        self._market = live.market
        self._committer = live.committer
        self._index = SymbolIndex(max_symbols)
        self._any_price = any_price
        self._check = FrameCheck(live.market, self._index.symbols)
        # Loads the kernel that checks ticks, so that no call has to wait for it.
        decode_messages((_SAMPLE,), SymbolIndex(1), time.time_ns())

    async def StreamTicks(
        self, requests: AsyncIterator[tick_pb2.Tick], context: Context
    ) -> tick_pb2.Ack:
        """Take ticks one by one, checked as the TCP server does, and answer with their number.

        The answer comes once all of them are committed.

        INVALID_ARGUMENT for a message that is not a Tick; those before it have been taken.
        """
        taken = 0
        refused = np.zeros(REASONS, np.int64)
        try:
            async for tick in requests:
                await self._committer.room()
                decoded = decode_messages(
                    (tick,), self._index, time.time_ns(), any_price=self._any_price
                )
                permitted = writable(decoded.frames, self._index.symbols, context.access)
                frames = self._check.admit(permitted)
                self._live.take_new(frames)
                taken += len(frames.trades)
                refused[frames.refused_reason] += 1
                await context.spend(tick, 1)
        except DecodeError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        await self._committer.until(self._market.commit)
        return tick_pb2.Ack(success=True, message=_receipt(taken, refused))

    async def StreamTickBatches(
        self, requests: AsyncIterator[marketdata_pb2.TickBatch], context: Context
    ) -> None:
        """Take batches of streams, and acknowledge each once it is committed.

        INVALID_ARGUMENT for a wrong batch, FAILED_PRECONDITION for a gap in a stream: neither is
        worth a retry. UNAVAILABLE where the position of an unknown stream is in a store that is
        unavailable. The batches before have been taken.
        """
        _check_streams(context)
        symbols = SymbolTable()
        check = FrameCheck(self._market, symbols)

        async def write(stream_id: str, next_sequence: int) -> None:
            ack = marketdata_pb2.BatchAck(stream_id=stream_id, next_sequence=next_sequence)
            await context.write(ack)

        try:
            async with acknowledging(self._committer, write) as acknowledger:
                async for batch in requests:
                    run = decode_batch(batch, symbols)
                    check_stream(run.stream_id, run.first_sequence, run.frames.count)
                    if batch.traceparent:
                        tracing.arrived(run, batch.traceparent)
                    await self._live.accept(run, check, acknowledger)
                    await context.spend(batch, run.frames.count)
        except SequenceGapError as error:
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, error)
        except StoreUnavailableError as error:  # which the committer has logged
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except (BatchError, DecodeError) as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)

    async def GetStreamPosition(
        self, request: marketdata_pb2.StreamPositionRequest, context: Context
    ) -> marketdata_pb2.StreamPosition:
        """Send the position of a stream, once everything taken of it is committed.

        UNAVAILABLE where the position is in a store that is unavailable.
        """
        _check_streams(context)
        try:
            position = await self._live.position(request.stream_id)
        except StoreUnavailableError as error:  # which the committer has logged
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return marketdata_pb2.StreamPosition(known=position is not None, next_sequence=position)

    async def ClaimStream(
        self, request: marketdata_pb2.StreamClaim, context: Context
    ) -> marketdata_pb2.StreamOwner:
        """Make a stream a principal's, unless it is another's, and send whose it is.

        INVALID_ARGUMENT for a wrong stream id, or no principal. UNAVAILABLE where the answer is in
        a store that is unavailable.
        """
        _check_streams(context)
        try:
            check_claim(request.stream_id, request.principal)
            owner = await self._live.own(request.stream_id, request.principal)
        except BatchError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except StoreUnavailableError as error:  # which the committer has logged
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return marketdata_pb2.StreamOwner(principal=owner)

    async def GetAggregate(
        self, request: marketdata_pb2.AggregateRequest, context: Context
    ) -> marketdata_pb2.Aggregate:
        """Send a symbol's session, the current one by default; NOT_FOUND where there is none."""
        name, session = await self._session(request, context)
        opened, high, low, close, volume, _, timestamp_ns, _ = session.tolist()
        return encode_aggregate(name, opened, high, low, close, volume, timestamp_ns)

    async def GetSession(
        self, request: marketdata_pb2.AggregateRequest, context: Context
    ) -> marketdata_pb2.UpdateBatch:
        """Send a symbol's session as `GetAggregate`, with exact prices and the number of trades."""
        name, session = await self._session(request, context)
        updates = updates_of(self._market, np.zeros(1, np.uint32), session.reshape(1))
        return encode_updates(updates, [name])

    async def _session(
        self, request: marketdata_pb2.AggregateRequest, context: Context
    ) -> tuple[str, np.void]:
        """Return a symbol as the market writes it, and the session of it that is requested."""
        found = await self._found(request.symbol, _AGGREGATES, context)
        index = int(found[0])
        try:
            session = session_of(self._market, index, request.session)
        except UsageError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        name = self._market.symbols[index]
        if session is None:
            what = f"session {request.session} of {name} is not kept"
            await context.abort(grpc.StatusCode.NOT_FOUND, what)
        return name, session

    async def StreamAggregates(
        self, request: marketdata_pb2.AggregateRequest, context: Context
    ) -> None:
        """Send the session of a symbol, or of all, at once and when it has changed."""
        symbol = _normalised(request.symbol)
        reader = _reader(_AGGREGATES, context)
        seen = 0
        with self._live.subscribers.join(symbol) as wakeups:
            async for _ in wakeups:
                changed = (
                    traded(self._market, symbol) if symbol else self._market.changed_since(seen)
                )
                seen = self._market.commit
                for aggregate in _aggregates(self._market, self._readable(changed, reader)):
                    await context.write(aggregate)

    async def StreamUpdates(
        self, _request: marketdata_pb2.UpdatesRequest, context: Context
    ) -> None:
        """Send all sessions at once, and then those that have changed, as columns."""
        _check_reads_all(_AGGREGATES, context)
        seen = known_symbols = known_lots = 0
        with self._live.subscribers.join() as wakeups:
            async for _ in wakeups:
                changed = self._market.changed_since(seen)
                traceparent = self._live.trace_since(seen)
                probes = self._market.probes_since(seen)
                total = len(self._market.symbols)
                seen = self._market.commit
                new = range(known_symbols, total)
                lots = self._market.symbols.lots_since(known_lots)
                known_lots += len(lots)
                last = {"probes": probes, "new_lots": lots, "traceparent": traceparent}
                for message in _updates(self._market, changed, new, last):
                    await context.write(message)
                known_symbols = total

    async def GetBars(
        self, request: marketdata_pb2.BarsRequest, context: Context
    ) -> marketdata_pb2.Bars:
        """Send a symbol's bars, newest first; a limit of 0 means as many as memory holds.

        UNAVAILABLE where some of them are in a store that cannot be read.
        """
        found = await self._found(request.symbol, _BARS, context)
        try:
            interval_ns = parse_duration(request.interval, calendar_advice(request.interval))
            limit = request.limit or self._market.bars.keep + 1
            symbol = int(found[0])
            if request.since:
                bars = await self._live.bars.since(symbol, interval_ns, limit, request.since)
            else:
                bars = await self._live.bars.history(symbol, interval_ns, limit, request.before)
        except UsageError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except (StoreError, StoreFormatError) as error:
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, error)
        return _bars(bars)

    async def StreamBars(self, request: marketdata_pb2.BarUpdatesRequest, context: Context) -> None:
        """Send the newest bar of a symbol, or of all, at once, and then the bars that change."""
        symbol = _normalised(request.symbol)
        reader = _reader(_BARS, context)
        table = _CallTable(self._market.symbols)
        with self._live.subscribers.join(symbol) as wakeups:
            try:
                async for bars in changed_bars(self._market, symbol, request.interval, wakeups):
                    shown = (
                        bars if reader is None else bars[self._can_read(bars["instrument"], reader)]
                    )
                    for begin in range(0, len(shown), _MAX_ROWS):
                        part = shown[begin : begin + _MAX_ROWS]
                        await context.write(_bar_updates(part, table))
            except UsageError as error:
                await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)

    async def StreamTrades(
        self, requests: AsyncIterator[marketdata_pb2.TradesRequest], context: Context
    ) -> None:
        """Send every batch that is committed from the initial metadata on, in order.

        RESOURCE_EXHAUSTED for a client that reads too slowly. INVALID_ARGUMENT for a message that
        is not a TradesRequest.
        """
        _check_reads_all(_TRADES, context)
        with self._live.trades.follow() as follower:
            await context.send_initial_metadata(())
            reading = asyncio.create_task(_read_requests(requests, follower))
            try:
                async for batch in follower:
                    # States go first: each message delays those written behind it by 0.1 ms.
                    await asyncio.sleep(0)
                    await context.write(batch)
                if reading.done():
                    reading.result()
            except BehindError as error:
                await _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, error)
            except DecodeError as error:
                await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _found(self, symbol: str, feed: str, context: Context) -> NDArray[np.uint32]:
        """Return the index of a symbol; NOT_FOUND where it has no trades, or may not be read."""
        reader, name = _reader(feed, context), _normalised(symbol)
        found = traded(self._market, name)
        if not len(found) or (reader is not None and not reader.can_read(name)):
            await _abort_unknown(symbol, context)
        return found

    def _readable(self, symbols: NDArray[np.uint32], reader: Reader | None) -> NDArray[np.uint32]:
        return symbols if reader is None else symbols[self._can_read(symbols, reader)]

    def _can_read(self, symbols: NDArray[Any], reader: Reader) -> NDArray[np.bool_]:
        names = self._market.symbols
        return np.array([reader.can_read(names[int(each)]) for each in symbols], np.bool_)


def _reader(feed: str, context: Context) -> Reader | None:
    """Return what the client may read of a feed; raise ForbiddenError where that is nothing."""
    if not context.access.has_feed(feed):
        raise ForbiddenError(f"{feed}: none of your roles has this feed")
    return context.access.reader(feed)


def _check_reads_all(feed: str, context: Context) -> None:
    """Raise ForbiddenError where the client may not read every symbol of a feed.

    What services exchange is encoded once, for all of them.
    """
    if _reader(feed, context) is not None:
        raise ForbiddenError(
            f"{feed}: this call has every symbol; use StreamAggregates, StreamBars"
        )


def _check_streams(context: Context) -> None:
    """Raise ForbiddenError where the client may not move any stream of any symbols.

    The ingest server may, which knows whose each stream is; who sends ticks of its own may not.
    """
    if not (context.access.writes_all and context.access.has(STREAMS)):
        raise ForbiddenError(
            f"this call is for services, which have the right {STREAMS!r} and write every symbol; "
            "send ticks by StreamTicks"
        )


async def _read_requests(
    requests: AsyncIterator[marketdata_pb2.TradesRequest], follower: Follower
) -> None:
    """Have a follower collect as its call requests; each request but the first is answered."""
    try:
        follower.collect((await anext(requests)).interval_ms)
        async for request in requests:
            follower.request(request.interval_ms)
    except StopAsyncIteration:
        pass
    except DecodeError:
        follower.close()
        raise


async def _abort_unknown(symbol: str, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.NOT_FOUND, f"no trades of symbol {symbol!r}")


async def _refuse(context: Context, code: grpc.StatusCode, error: Exception) -> NoReturn:
    log.warning("%s: call rejected: %s", context.peer(), error)
    await context.abort(code, str(error))


def _normalised(symbol: str) -> str:
    return symbol.strip().upper()


def _receipt(taken: int, refused: NDArray[np.int64]) -> str:
    text = f"Received {taken} ticks"
    if not refused.any():
        return text
    return f"{text}, refused {refused.sum()} ({reasons_text(refused)})"


def _aggregates(market: Market, symbols: NDArray[np.uint32]) -> Iterator[marketdata_pb2.Aggregate]:
    """Yield the sessions of symbols, a message each."""
    rows = market.sessions(symbols).tolist()
    for index, row in zip(symbols.tolist(), rows, strict=True):
        opened, high, low, close, volume, _, timestamp_ns, _ = row
        symbol = market.symbols[index]
        yield encode_aggregate(symbol, opened, high, low, close, volume, timestamp_ns)


def _updates(
    market: Market,
    changed: NDArray[np.uint32],
    new: range,
    last: Mapping[str, Any],
) -> Iterator[marketdata_pb2.UpdateBatch]:
    """Yield the sessions of symbols as columns, in messages that any client accepts.

    Parameters
    ----------
    market : Market
    changed : uint32[n]
        The symbols.
    new : range
        Those that the call's table is to be extended by; each precedes its session.
    last : mapping
        What the last message has besides, by the attributes of `Updates`.
    """
    changed = np.sort(changed)
    names = market.symbols.since(new.start)[: len(new)]
    known = 0
    while True:
        more = names[known : known + _MAX_ROWS]
        known += len(more)
        ready = changed[: np.searchsorted(changed, new.start + known)][:_MAX_ROWS]
        changed = changed[len(ready) :]
        is_part = known < len(new) or len(changed) > 0
        updates = updates_of(market, ready)
        if is_part:
            yield encode_updates(replace(updates, is_part=True), more)
        else:
            yield encode_updates(replace(updates, **last), more)
            return


def _bars(history: NDArray[np.void]) -> marketdata_pb2.Bars:
    """Return bars of one symbol, BAR[n], as columns."""
    return encode_bars(bar_columns(history))


class _CallTable:
    """The symbol table of one call, which is extended by what its messages need."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._table = SymbolTable()
        self._map = SymbolMap(symbols, self._table.intern)

    def extend(self, symbols: NDArray[np.int64]) -> tuple[NDArray[np.uint32], list[str]]:
        """Return the call's indices of the market's symbols, and those that are new to the call."""
        known = len(self._table)
        return self._map.map(symbols), self._table.since(known)


def _bar_updates(changed: NDArray[np.void], table: _CallTable) -> marketdata_pb2.BarUpdates:
    """Return bars of any symbols, BAR[n], as columns."""
    symbol, new_symbols = table.extend(changed["instrument"])
    return encode_bar_updates(BarUpdates(symbol, bar_columns(changed)), new_symbols)
