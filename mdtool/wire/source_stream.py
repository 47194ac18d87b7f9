"""What a live source reports, as events, and these as a DBN stream.

A source has texts and decimals; the stream has instruments, int64 prices, and sizes of whole lots.
The lot of each symbol is in its definition record, whose `unit_of_measure` is `LOT`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import databento_dbn as dbn
import numpy as np

from mdtool.core.dtypes import (
    F_LAST,
    MBP1,
    RTYPE_MBP1,
    RTYPE_TRADE,
    TRADE,
    record_length,
)
from mdtool.core.errors import UsageError
from mdtool.core.records import Records
from mdtool.core.stream_warnings import SKIPPED_RECORDS, StreamWarning
from mdtool.core.units import (
    MIN_TIMESTAMP_NS,
    UNDEF_ORDER_SIZE,
    UNDEF_PRICE,
    fixed_point,
    format_price,
    parse_time,
)
from mdtool.wire.dbn_records import DBN_VERSION
from mdtool.wire.live_records import MAX_SYSTEM_CHARS, encode_mapping, metadata
from mdtool.wire.lot_definitions import lot_definition

MAX_SIZE: Final = UNDEF_ORDER_SIZE - 1
"""The most lots of one record."""
_MAX_PARTS: Final = 1024
"""The most records of one trade; what is larger is no trade."""
_KNOWN_IDS: Final = 4096
"""How many trade ids of a symbol are remembered at least, to leave out what a source repeats."""
_RAW_SYMBOL: Final = "raw_symbol"
_LAST_SECONDS: Final = 64
_NS_DIGITS: Final = 9
_LOWER_HALF: Final = 0xFFFFFFFF
_SECOND_CHARS: Final = len("2026-12-02T00:00:00")
NO_TIME_NS: Final = 0
"""Stands for a time that is none; what has it is refused."""
_TO_NS: Final = tuple(int(10**n) for n in range(9, -1, -1))
"""The factor of a fraction of a second, by its digits."""


class Trade(NamedTuple):
    """A trade, in the source's texts. Whatever else is in a field is refused.

    Attributes
    ----------
    symbol, price, size : str
        Decimals.
    ts_event : int
        Nanoseconds since the epoch.
    side : str
        Of the aggressor: `B` bought, `A` sold, `N` is not known.
    trade_id : int or None
        Which a source does not give twice within a symbol; None where it gives none.
    is_regular : bool
        Whether its conditions let it count for prices and volumes.
    """

    symbol: str
    price: str
    size: str
    ts_event: int
    side: str = "N"
    trade_id: int | None = None
    is_regular: bool = True


class Quote(NamedTuple):
    """The best bid and ask of a symbol, in the source's texts; an empty side has a price of 0."""

    symbol: str
    bid: str
    bid_size: str
    ask: str
    ask_size: str
    ts_event: int


class Lot(NamedTuple):
    """The step of a symbol's sizes; trades of a symbol come after its lot."""

    symbol: str
    step: str


class Gap(NamedTuple):
    """The stream may lack records, from here on."""

    reason: str


class Note(NamedTuple):
    """A correction or cancellation of a trade that was sent before, in words."""

    text: str


class Malformed(NamedTuple):
    """A message that is not as the source's protocol says."""

    message: str


class Send(NamedTuple):
    """A message that the source expects now."""

    text: str


class Postponed(NamedTuple):
    """The source has refused a part of a subscription for the moment: what to send again later."""

    text: str
    reason: str


class Subscribed(NamedTuple):
    """The source has accepted the subscription."""


class Rejected(NamedTuple):
    """The source does not serve a symbol."""

    symbol: str
    reason: str


class Lost(NamedTuple):
    """The source asks to connect again."""

    reason: str


class Failed(NamedTuple):
    """The source does not serve this client, and would not if it tried again.

    `is_for_keys` where another key would help.
    """

    reason: str
    is_for_keys: bool = False


Event: TypeAlias = (
    Trade
    | Quote
    | Lot
    | Gap
    | Note
    | Malformed
    | Send
    | Postponed
    | Subscribed
    | Rejected
    | Lost
    | Failed
)


def time_ns(text: object) -> int:
    """Return `parse_time` of an RFC 3339 time in UTC, fast for times of the same seconds.

    What is not a time is `NO_TIME_NS`.
    """
    if type(text) is not str:
        return NO_TIME_NS
    second, _, fraction = text.partition(".")
    digits = fraction[:-1]
    try:
        if (
            len(second) == _SECOND_CHARS
            and digits.isdecimal()
            and len(digits) <= _NS_DIGITS
            and fraction[-1] == "Z"
        ):
            return _second_ns(second) + int(digits) * _TO_NS[len(digits)]
        return parse_time(text)
    except (UsageError, ValueError):
        return NO_TIME_NS


def sequence_of(trade_id: int) -> int:
    """Return the `sequence` of a trade with this id: its lower half."""
    return trade_id & _LOWER_HALF


@functools.lru_cache(_LAST_SECONDS)
def _second_ns(text: str) -> int:
    return parse_time(text)


@dataclass(slots=True)
class _Instrument:
    """A symbol of the stream."""

    instrument_id: int
    step: int
    """Its lot, in units of 1e-9."""
    known: set[int] = field(default_factory=set)
    """The latest trade ids."""
    known_before: set[int] = field(default_factory=set)
    """Those before them."""

    def is_repeated(self, trade_id: int) -> bool:
        """Return whether a trade id was given before, and remember it."""
        if trade_id in self.known or trade_id in self.known_before:
            return True
        self.known.add(trade_id)
        if len(self.known) == _KNOWN_IDS:
            self.known_before, self.known = self.known, set()
        return False


class SourceEncoder:
    """Encodes the events of one source as a DBN stream.

    Parameters
    ----------
    dataset : str
        At most 16 ASCII characters.
    start_ns : int
        When the stream begins.
    instrument_class : str
        Of all instruments, one character as in definitions.
    lots : mapping of str to int
        The steps of symbols in units of 1e-9 that go before the source's own.
    is_regular_only : bool
        Whether to leave out trades whose conditions are not regular.

    Attributes
    ----------
    counts : Counter of str
        `trades`, `quotes`, `duplicates`, `irregular`, `gaps`, `notes`, and what was refused:
        `symbol`, `price`, `size`, `lot`, `timestamp`, `malformed`.
    """

    def __init__(
        self,
        dataset: str,
        start_ns: int,
        instrument_class: str,
        lots: Mapping[str, int] | None = None,
        is_regular_only: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._class = instrument_class
        self._lots = lots or {}
        self._is_regular_only = is_regular_only
        self._instruments: dict[str, _Instrument] = {}
        self._trades: list[tuple[object, ...]] = []
        self._quotes: list[tuple[object, ...]] = []
        self._ts_recv = start_ns
        self._encoded = bytearray(
            metadata(dataset, start_ns, has_ts_out=False, version=DBN_VERSION)
        )

    def add(self, events: Iterable[Event], ts_recv_ns: int) -> None:
        """Take what one message brought, and when; times of reception never go back."""
        self._ts_recv = max(self._ts_recv, ts_recv_ns)
        for event in events:
            if type(event) is Trade:  # most are
                self._add_trade(event)
                continue
            match event:
                case Quote():
                    self._add_quote(event)
                case Lot(symbol, step):
                    self._add_lot(symbol, step)
                case Gap(reason):
                    self.counts["gaps"] += 1
                    self._encode_rows()
                    self._encoded += encode_gap(reason, self._ts_recv)
                case Note(text):
                    self.counts["notes"] += 1
                    self._encode_rows()
                    self._encoded += _encode_text(text, self._ts_recv)
                case Malformed():
                    self.counts["malformed"] += 1
                case _:  # of the connection
                    pass

    def take(self) -> bytes:
        """Return the bytes of the stream that there are since the last call: the header first."""
        self._encode_rows()
        taken = bytes(self._encoded)
        self._encoded.clear()
        return taken

    def _add_trade(self, trade: Trade) -> None:
        symbol, price_text, size_text, ts_event, side, trade_id, is_regular = trade
        instrument = self._instruments.get(symbol) if type(symbol) is str else None
        if instrument is None:
            self.counts["symbol"] += 1
            return
        if trade_id is not None and instrument.is_repeated(trade_id):
            self.counts["duplicates"] += 1
            return
        if self._is_regular_only and not is_regular:
            self.counts["irregular"] += 1
            return
        # As `_units` and `_is_time`, whose calls would take a tenth of the time of a trade.
        price = fixed_point(price_text) if type(price_text) is str else None
        size = fixed_point(size_text) if type(size_text) is str else None
        if price is None or not -UNDEF_PRICE < price < UNDEF_PRICE:
            self.counts["price"] += 1
            return
        if size is None or size <= 0:
            self.counts["size"] += 1
            return
        lots, rest = divmod(size, instrument.step)
        if lots > MAX_SIZE * _MAX_PARTS:
            self.counts["size"] += 1
        elif rest:
            self.counts["lot"] += 1
        elif type(ts_event) is not int or not MIN_TIMESTAMP_NS <= ts_event < UNDEF_PRICE:
            self.counts["timestamp"] += 1
        else:
            if self._quotes:
                self._encode_rows()
            self.counts["trades"] += 1
            number, ts_recv = instrument.instrument_id, self._ts_recv
            sequence = 0 if trade_id is None else trade_id & _LOWER_HALF
            while lots > MAX_SIZE:
                row = (number, ts_event, price, MAX_SIZE, side, 0, ts_recv, sequence)
                self._trades.append(row)
                lots -= MAX_SIZE
            self._trades.append((number, ts_event, price, lots, side, F_LAST, ts_recv, sequence))

    def _add_quote(self, quote: Quote) -> None:
        symbol = quote.symbol
        instrument = self._instruments.get(symbol) if type(symbol) is str else None
        if instrument is None:
            self.counts["symbol"] += 1
            return
        bid, ask = _units(quote.bid), _units(quote.ask)
        sizes = _units(quote.bid_size), _units(quote.ask_size)
        if bid is None or ask is None or max(abs(bid), abs(ask)) >= UNDEF_PRICE:
            self.counts["price"] += 1
        elif sizes[0] is None or sizes[1] is None or min(sizes[0], sizes[1]) < 0:
            self.counts["size"] += 1
        elif sizes[0] % instrument.step or sizes[1] % instrument.step:
            self.counts["lot"] += 1
        elif not _is_time(quote.ts_event):
            self.counts["timestamp"] += 1
        else:
            if self._trades:
                self._encode_rows()
            self.counts["quotes"] += 1
            lots = [min(size // instrument.step, MAX_SIZE) for size in sizes if size is not None]
            self._quotes.append(
                (
                    *(instrument.instrument_id, quote.ts_event, self._ts_recv),
                    *(bid or UNDEF_PRICE, ask or UNDEF_PRICE),
                    *(lots[0] if bid else 0, lots[1] if ask else 0),
                )
            )

    def _encode_rows(self) -> None:
        """Encode the trades or quotes that wait; there are never both."""
        if self._trades:
            self._encoded += _trades(self._trades).tobytes()
            self._trades.clear()
        if self._quotes:
            self._encoded += _quotes(self._quotes).tobytes()
            self._quotes.clear()

    def _add_lot(self, symbol: object, text: object) -> None:
        if type(symbol) is not str or not symbol.isascii():
            self.counts["symbol"] += 1
        elif not 0 < (step := self._lots.get(symbol) or _units(text) or 0) < UNDEF_PRICE:
            self.counts["lot"] += 1
        else:
            self._define(symbol, step)

    def _define(self, symbol: str, step: int) -> None:
        """Name a symbol and its lot; one that it has already stays to the end of the stream."""
        known = self._instruments.get(symbol)
        if known and known.step == step:
            return
        self._encode_rows()
        if known is not None:
            self.counts["notes"] += 1
            self._encoded += _encode_text(
                f"{symbol}: its lot is {format_price(step)} now; sizes go on in lots of "
                f"{format_price(known.step)}, and others are refused",
                self._ts_recv,
            )
            return
        instrument = _Instrument(len(self._instruments) + 1, step)
        self._instruments[symbol] = instrument
        self._encoded += encode_mapping(
            instrument.instrument_id, _RAW_SYMBOL, symbol, symbol, self._ts_recv
        )
        definition = lot_definition(
            instrument.instrument_id, symbol, step, self._ts_recv, self._class
        )
        self._encoded += definition.tobytes()


def _units(value: object) -> int | None:
    """Return a decimal's text in units of 1e-9, None for any other value."""
    return fixed_point(value) if type(value) is str else None


def _is_time(value: object) -> bool:
    return type(value) is int and MIN_TIMESTAMP_NS <= value < UNDEF_PRICE


def encode_gap(reason: str, ts_ns: int) -> bytes:
    """Return the record which says that the stream may lack records from here on."""
    return _encode_text(StreamWarning(SKIPPED_RECORDS, reason, None, ts_ns).passed_on, ts_ns)


def _encode_text(text: str, ts_ns: int) -> bytes:
    said = text.encode("ascii", "replace").decode()[:MAX_SYSTEM_CHARS]
    return bytes(dbn.SystemMsg(ts_event=ts_ns, msg=said))


_TRADE_ROW: Final = np.dtype(
    [
        *(("instrument_id", "<u4"), ("ts_event", "<u8"), ("price", "<i8"), ("size", "<u4")),
        *(("side", "S1"), ("flags", "u1"), ("ts_recv", "<u8"), ("sequence", "<u4")),
    ]
)
_QUOTE_ROW: Final = np.dtype(
    [
        *(("instrument_id", "<u4"), ("ts_event", "<u8"), ("ts_recv", "<u8")),
        *(("bid_px_00", "<i8"), ("ask_px_00", "<i8")),
        *(("bid_sz_00", "<u4"), ("ask_sz_00", "<u4")),
    ]
)


def _trades(rows: list[tuple[object, ...]]) -> Records:
    return _records(TRADE, RTYPE_TRADE, b"T", np.array(rows, _TRADE_ROW))


def _quotes(rows: list[tuple[object, ...]]) -> Records:
    quotes = _records(MBP1, RTYPE_MBP1, b"M", np.array(rows, _QUOTE_ROW))
    quotes["price"] = UNDEF_PRICE
    quotes["side"] = b"N"
    quotes["flags"] = F_LAST
    return quotes


def _records(dtype: np.dtype[np.void], rtype: int, action: bytes, rows: Records) -> Records:
    records = np.zeros(len(rows), dtype)
    for name in rows.dtype.names or ():
        records[name] = rows[name]
    records["length"] = record_length(dtype)
    records["rtype"] = rtype
    records["action"] = action
    return records
