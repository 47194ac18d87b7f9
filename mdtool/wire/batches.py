"""Messages of the aggregation engine's calls: columns of trades in, bars and updates out.

Columns of the right lengths can still carry values that no ingest server accepts. `check_stream`,
`check_trades` and `check_symbol` find them: a peer that sends such is in error, and its call ends
before any of the batch counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdtool.core.errors import PeerError
from mdtool.core.symbols import MAX_SYMBOL_CHARS, SymbolTable, is_symbol
from mdtool.core.trades import PROBE, Frames, Probe, Reason, TradeRun, Trades
from mdtool.core.units import MIN_TIMESTAMP_NS, PRICE_SCALE, UNDEF_PRICE
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.frames import MAX_STREAM_ID_CHARS, is_stream_id

S = TypeVar("S", bound=np.generic)

Lots: TypeAlias = Sequence[tuple[int, int]]
"""Indices of symbols, and their lots in units of 1e-9."""

_U1: Final = np.dtype("u1")
_U4: Final = np.dtype("<u4")
_I8: Final = np.dtype("<i8")


class BatchError(PeerError):
    """A peer sent columns that contradict each other, or values that are not valid."""


@dataclass(slots=True)
class BarColumns:
    """Bars of one interval; of one symbol and newest first unless stated otherwise.

    Attributes
    ----------
    start : int64[n]
        Nanoseconds since the epoch, inclusive.
    open, high, low, close : int64[n]
        In units of 1e-9.
    volume : int64[n]
    count : int64[n]
        Trades.
    """

    start: NDArray[np.int64]
    open: NDArray[np.int64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]
    close: NDArray[np.int64]
    volume: NDArray[np.int64]
    count: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many bars there are."""
        return len(self.start)


@dataclass(slots=True)
class BarUpdates:
    """Bars of one interval that changed.

    Attributes
    ----------
    symbol : uint32[n]
        Index into the symbol table of the call, one a bar.
    bars : BarColumns
        The n bars, of each symbol oldest first.
    """

    symbol: NDArray[np.uint32]
    bars: BarColumns

    def __len__(self) -> int:
        """Return how many bars changed."""
        return len(self.symbol)


@dataclass(slots=True)
class Counts:
    """Totals of ticks since the aggregator's state began.

    Attributes
    ----------
    ticks : int
        Accepted and applied.
    duplicates : int
        Sent again, and left out.
    late : int
        Left out of a time bar for being older than its lateness.
    refused : dict
        By the label of the `Reason`.
    late_for_sessions : int
        Left out of sessions, for theirs is not kept any more.
    """

    ticks: int = 0
    duplicates: int = 0
    late: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    late_for_sessions: int = 0


@dataclass(slots=True)
class Updates:
    """The state of the symbols that changed.

    Attributes
    ----------
    symbol : uint32[n]
        Index into the symbol table of the call.
    open, high, low, close : int64[n]
        Of the session, in units of 1e-9.
    volume : int64[n]
    count : int64[n]
        Trades.
    timestamp : int64[n]
        Nanoseconds since the epoch, the exchange time of the latest trade.
    ingest_timestamp : int64[n]
        Nanoseconds since the epoch, when the latest trade reached the ingest server.
    counts : Counts
        Totals over all symbols.
    is_part : bool
        Whether the next message continues this one.
    probes : sequence of Probe
        Those since the last message, of each stream the latest.
    new_lots : sequence of (int, int)
        Lots of symbols, by index, since the last message.
    traceparent : str
        The trace of the latest sampled batch since the last message; empty for none.
    """

    symbol: NDArray[np.uint32]
    open: NDArray[np.int64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]
    close: NDArray[np.int64]
    volume: NDArray[np.int64]
    count: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    ingest_timestamp: NDArray[np.int64]
    counts: Counts
    is_part: bool = False
    probes: Sequence[Probe] = ()
    new_lots: Lots = ()
    traceparent: str = ""

    def __len__(self) -> int:
        """Return how many symbols changed."""
        return len(self.symbol)


_BAR_COLUMNS: Final = tuple(column.name for column in fields(BarColumns))
_UPDATE_COLUMNS: Final = tuple(
    column.name
    for column in fields(Updates)
    if column.name not in {"symbol", "counts", "is_part", "probes", "new_lots", "traceparent"}
)
_TRADE_COLUMNS: Final = {
    "price": "price",
    "size": "volume",
    "ts_event": "exchange_timestamp",
    "ts_recv": "ingest_timestamp",
}
"""What a TickBatch calls the columns of trades."""
_LEAST: Final = {"size": 1, "ts_event": MIN_TIMESTAMP_NS}
_MAX_SEQUENCE: Final = 2**63 - 1
"""Stores keep sequences as int64."""


def encode_batch(
    run: TradeRun,
    new_symbols: Iterable[str] = (),
    new_lots: Lots = (),
    traceparent: str = "",
) -> marketdata_pb2.TickBatch:
    """Return a run as a message.

    Parameters
    ----------
    run : TradeRun
        Its symbols are indices into the sender's table.
    new_symbols : iterable of str
        What the call's table is to be extended by first, so that it equals the sender's as far as
        the run needs it.
    new_lots : sequence of (int, int)
        The lots of symbols of the call's table that the peer does not have yet.
    traceparent : str
        The trace of the run; empty for none.
    """
    frames, trades = run.frames, run.trades
    has_gaps = len(frames.offset) < frames.count
    columns = {
        name: _bytes(getattr(trades, column), _I8) for column, name in _TRADE_COLUMNS.items()
    }
    return marketdata_pb2.TickBatch(
        stream_id=run.stream_id,
        first_sequence=run.first_sequence,
        frames=frames.count,
        new_symbols=new_symbols,
        symbol=_bytes(trades.symbol, _U4),
        offset=_bytes(frames.offset, _U4) if has_gaps else b"",
        refused_offset=_bytes(frames.refused_offset, _U4),
        refused_reason=_bytes(frames.refused_reason, _U1),
        new_lots=_lots(new_lots),
        traceparent=traceparent,
        **columns,
    )


def decode_batch(
    message: marketdata_pb2.TickBatch, symbols: SymbolTable, *, is_part: bool = False
) -> TradeRun:
    """Return the run of a message; its columns are read-only views of the message's bytes.

    Parameters
    ----------
    message : TickBatch
        As `encode_batch` makes it.
    symbols : SymbolTable
        The call's own, which the message's new symbols are appended to; the run's table.
    is_part : bool
        Whether the message may lack some of the frames that it covers.

    Raises
    ------
    BatchError
        When columns have different lengths, point outside `frames` or the table, or do not rise.
    """
    _append(symbols, message.new_symbols)
    _give_lots(symbols, message.new_lots)
    columns = {name: _column(message, name, _I8) for name in _TRADE_COLUMNS.values()}
    symbol = _column(message, "symbol", _U4)
    _check_lengths(symbol=symbol, **columns)
    _check_symbols(symbol, symbols)
    refused_offset = _column(message, "refused_offset", _U4)
    refused_reason = _column(message, "refused_reason", _U1)
    if message.offset or len(refused_offset) or len(refused_reason):
        offset = _column(message, "offset", _U4)
        _check_lengths(symbol=symbol, offset=offset)
        _check_lengths(refused_offset=refused_offset, refused_reason=refused_reason)
        _check_offsets(offset, refused_offset, message.frames, is_part)
        _check_reasons(refused_reason)
    elif message.frames == len(symbol):
        offset = np.arange(message.frames, dtype=np.uint32)
    else:
        raise BatchError(f"batch does not account for each of its {message.frames:,} frames")
    trades = Trades(symbol, *columns.values())
    frames = Frames(trades, offset, message.frames, refused_offset, refused_reason)
    return TradeRun(symbols, message.stream_id, message.first_sequence, frames)


def check_claim(stream_id: str, principal: str) -> None:
    """Raise BatchError where a claim has a wrong stream id, or nobody claims the stream."""
    check_stream(stream_id, 0, 0)
    if not principal or "\0" in principal:
        raise BatchError(f"stream {stream_id!r}: nobody claims it; name a principal")


def check_stream(stream_id: str, first_sequence: int, frames: int) -> None:
    """Raise BatchError where a batch has a wrong stream id, or sequences beyond int64."""
    if not is_stream_id(stream_id):
        raise BatchError(f"stream id is not 1 to {MAX_STREAM_ID_CHARS} printable characters")
    if first_sequence + frames > _MAX_SEQUENCE:
        raise BatchError(f"stream {stream_id!r} ends before sequence {first_sequence} + {frames}")


def check_trades(trades: Trades) -> None:
    """Raise BatchError where a trade has a value that no accepted tick has."""
    for name, least in _LEAST.items():
        column = getattr(trades, name)
        if len(column) and column.min() < least:
            raise BatchError(f"batch has a tick with a {_TRADE_COLUMNS[name]} of {column.min()}")
    if len(trades) and trades.price.max() == UNDEF_PRICE:
        raise BatchError("batch has a tick without a price")


def check_symbol(symbol: str) -> None:
    """Raise BatchError where no accepted tick could have a symbol."""
    if not is_symbol(symbol):
        raise BatchError(f"symbol {symbol[:MAX_SYMBOL_CHARS]!r} is not as ingest servers write it")


def encode_aggregate(
    symbol: str, opened: int, high: int, low: int, close: int, volume: int, timestamp_ns: int
) -> marketdata_pb2.Aggregate:
    """Return the message of a symbol's session, whose prices are given at 1e-9."""
    return marketdata_pb2.Aggregate(
        symbol=symbol,
        open=opened / PRICE_SCALE,
        high=high / PRICE_SCALE,
        low=low / PRICE_SCALE,
        close=close / PRICE_SCALE,
        volume=volume,
        timestamp=timestamp_ns,
    )


def encode_bars(bars: BarColumns) -> marketdata_pb2.Bars:
    """Return bars as a message."""
    return marketdata_pb2.Bars(**{name: _bytes(getattr(bars, name), _I8) for name in _BAR_COLUMNS})


def decode_bars(message: marketdata_pb2.Bars) -> BarColumns:
    """Return the bars of a message, as read-only views of its bytes.

    Raises
    ------
    BatchError
        When columns have different lengths.
    """
    columns = {name: _column(message, name, _I8) for name in _BAR_COLUMNS}
    _check_lengths(**columns)
    return BarColumns(**columns)


def encode_bar_updates(
    updates: BarUpdates, new_symbols: Iterable[str] = ()
) -> marketdata_pb2.BarUpdates:
    """Return bars that changed as a message, with what the call's table is to be extended by."""
    return marketdata_pb2.BarUpdates(
        new_symbols=new_symbols,
        symbol=_bytes(updates.symbol, _U4),
        bars=encode_bars(updates.bars),
    )


def decode_bar_updates(message: marketdata_pb2.BarUpdates, symbols: SymbolTable) -> BarUpdates:
    """Return the bars of a message, as read-only views of its bytes.

    The message's new symbols are appended to `symbols`, the call's own table.

    Raises
    ------
    BatchError
        When columns have different lengths or point outside the table.
    """
    _append(symbols, message.new_symbols)
    symbol = _column(message, "symbol", _U4)
    bars = decode_bars(message.bars)
    _check_lengths(symbol=symbol, start=bars.start)
    _check_symbols(symbol, symbols)
    return BarUpdates(symbol, bars)


def encode_updates(updates: Updates, new_symbols: Iterable[str] = ()) -> marketdata_pb2.UpdateBatch:
    """Return updates as a message, with the symbols that the call's table is to be extended by."""
    counts = updates.counts
    return marketdata_pb2.UpdateBatch(
        new_symbols=new_symbols,
        symbol=_bytes(updates.symbol, _U4),
        counts=marketdata_pb2.IngestCounts(
            ticks=counts.ticks,
            duplicates=counts.duplicates,
            late=counts.late,
            refused=counts.refused,
            late_for_sessions=counts.late_for_sessions,
        ),
        is_part=updates.is_part,
        probes=(
            marketdata_pb2.ProbeFrame(stream_id=probe.stream_id, sequence=probe.sequence)
            for probe in updates.probes
        ),
        new_lots=_lots(updates.new_lots),
        traceparent=updates.traceparent,
        **{name: _bytes(getattr(updates, name), _I8) for name in _UPDATE_COLUMNS},
    )


def decode_updates(message: marketdata_pb2.UpdateBatch, symbols: SymbolTable) -> Updates:
    """Return the updates of a message, as read-only views of its bytes.

    The message's new symbols are appended to `symbols`, the call's own table.

    Raises
    ------
    BatchError
        When columns have different lengths or point outside the table.
    """
    _append(symbols, message.new_symbols)
    _give_lots(symbols, message.new_lots)
    symbol = _column(message, "symbol", _U4)
    columns: dict[str, Any] = {name: _column(message, name, _I8) for name in _UPDATE_COLUMNS}
    _check_lengths(symbol=symbol, **columns)
    _check_symbols(symbol, symbols)
    totals = message.counts
    counts = Counts(
        ticks=totals.ticks,
        duplicates=totals.duplicates,
        late=totals.late,
        refused=dict(totals.refused),
        late_for_sessions=totals.late_for_sessions,
    )
    probes = [Probe(probe.stream_id, probe.sequence) for probe in message.probes]
    return Updates(
        symbol=symbol,
        counts=counts,
        is_part=message.is_part,
        probes=probes,
        new_lots=[(each.symbol, each.step) for each in message.new_lots],
        traceparent=message.traceparent,
        **columns,
    )


def _bytes(column: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    return column.astype(dtype, copy=False).tobytes()


def _column(message: Any, name: str, dtype: np.dtype[S]) -> NDArray[S]:
    data: bytes = getattr(message, name)
    if len(data) % dtype.itemsize:
        raise BatchError(f"column {name} of {len(data):,} bytes is cut in a number")
    return np.frombuffer(data, dtype)


def _append(symbols: SymbolTable, new_symbols: Iterable[str]) -> None:
    for name in new_symbols:
        before = len(symbols)
        if symbols.intern(name) != before:
            raise BatchError(f"symbol {name!r} is in the call's table already")


def _lots(lots: Lots) -> Iterable[marketdata_pb2.SymbolLot]:
    return (marketdata_pb2.SymbolLot(symbol=index, step=step) for index, step in lots)


def _give_lots(symbols: SymbolTable, lots: Iterable[marketdata_pb2.SymbolLot]) -> None:
    for each in lots:
        if each.symbol >= len(symbols) or each.step <= 0:
            raise BatchError(f"lot of {each.step} for symbol {each.symbol} is not valid")
        symbols.give_lot(each.symbol, each.step)


def _check_lengths(**columns: NDArray[Any]) -> None:
    if len(set(map(len, columns.values()))) > 1:
        shown = ", ".join(f"{name} {len(column):,}" for name, column in columns.items())
        raise BatchError(f"columns of different lengths: {shown}")


def _check_symbols(symbol: NDArray[np.uint32], symbols: SymbolTable) -> None:
    if len(symbol) and symbol.max() >= len(symbols):
        raise BatchError(f"symbol {symbol.max()} is outside the call's table of {len(symbols):,}")


def _check_offsets(
    offset: NDArray[np.uint32], refused_offset: NDArray[np.uint32], frames: int, is_part: bool
) -> None:
    known = len(offset) + len(refused_offset)
    if known > frames or (known < frames and not is_part):
        raise BatchError(f"batch does not account for each of its {frames:,} frames")
    for column in (offset, refused_offset):
        if len(column) and (column[-1] >= frames or not (column[1:] > column[:-1]).all()):
            raise BatchError(f"offsets do not rise within the batch's {frames:,} frames")
    before = np.searchsorted(offset, refused_offset)
    after = np.searchsorted(offset, refused_offset, side="right")
    if (before != after).any():
        raise BatchError("batch both takes and refuses a frame")


def _check_reasons(refused_reason: NDArray[np.uint8]) -> None:
    if len(refused_reason) and not (
        Reason.SYMBOL <= refused_reason.min() <= refused_reason.max() <= PROBE
    ):
        raise BatchError("batch refuses a tick for an unknown reason")
