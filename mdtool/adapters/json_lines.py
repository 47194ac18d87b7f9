"""Ticks from JSON lines: a Tick each, as protobuf writes it, or a trade as `--json` writes it."""

from __future__ import annotations

import codecs
import json
import logging
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import Any, Final, TypeAlias

import numpy as np

from mdtool.adapters.byte_source import ByteSource
from mdtool.core.errors import InputError, UsageError
from mdtool.core.symbols import MAX_SYMBOL_CHARS, SymbolTable, normal_symbol
from mdtool.core.trades import REASONS, NamedTrades, Reason, Trades, reasons_text
from mdtool.core.units import (
    UNDEF_ORDER_SIZE,
    UNDEF_PRICE,
    counted,
    parse_price,
    parse_time,
)
from mdtool.wire.compression import head_of

log = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 1 << 18
_MAX_LINE_BYTES: Final = 1 << 16
_TRADE: Final = "T"
_TIMES: Final = ("exchange_timestamp", "exchangeTimestamp")
_NANO: Final = Decimal("1e-9")
_WHOLE_DIGITS: Final = 20
"""More digits than an int64 has."""
_LOGGED_LINES: Final = 5
"""How many refused lines are logged one by one."""

_Tick: TypeAlias = tuple[int, int, int, int, int]
"""Symbol, price, volume, exchange timestamp, and the time by which it is paced."""


def is_json_lines(source: ByteSource) -> bool:
    """Return whether the bytes begin as a JSON object does, perhaps after a byte order mark.

    So may what they are when they are decompressed.
    """
    return head_of(source.peek()).removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"


class _RefusedLine(Exception):  # noqa: N818 - what happens to the line
    """A line is not a tick, for a reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Field:
    """A block that reads a field: the line is refused if it is absent or not valid."""

    __slots__ = ("_reason",)

    def __init__(self, reason: Reason) -> None:
        self._reason = reason

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, KeyError):
            raise _RefusedLine(self._reason, f"has no {error}") from error
        if isinstance(error, UsageError):
            raise _RefusedLine(self._reason, str(error)) from error


_SYMBOL: Final = _Field(Reason.SYMBOL)
_PRICE: Final = _Field(Reason.PRICE)
_VOLUME: Final = _Field(Reason.VOLUME)
_TIMESTAMP: Final = _Field(Reason.TIMESTAMP)


class JsonLines:
    """The ticks of a text with one JSON object a line.

    A Tick has `symbol`, `price`, `volume` and `exchange_timestamp`, the latter in nanoseconds or
    ISO-8601; the default is now. Its price, a double, is rounded to the nearest 1e-9. A DBN record
    as JSON, recognised by its `hd`, counts if it is a trade; it must have its `symbol`, and has its
    price at 1e-9 or, pretty, as a decimal. Whole numbers may be written as doubles, such as 1.0.
    A file may be compressed. It may begin with a byte order mark, and so may each of several that
    follow each other.

    Parameters
    ----------
    source : ByteSource
        Closed together with this one.
    is_strict : bool
        Whether a line that is not a tick ends the source; else it is counted by reason and skipped.
    any_price : bool
        Whether prices of 0 and below are accepted.

    Attributes
    ----------
    refused : int64[REASONS]
        How many lines were skipped, by `Reason`.

    Raises
    ------
    InputError
        While iterating: at a line that is not a tick, if strict; at the end, if all lines were
        refused.
    """

    def __init__(
        self, source: ByteSource, is_strict: bool = False, *, any_price: bool = False
    ) -> None:
        self._any_price = any_price
        self.refused = np.zeros(REASONS, np.int64)
        self._is_strict = is_strict
        self._is_in_long_line = False
        self._accepted = 0
        self._source = source
        self._symbols = SymbolTable()
        self._lines = 0
        self.left_out = 0

    @property
    def name(self) -> str:
        """The file's name, or `stdin`."""
        return self._source.name

    @property
    def size_bytes(self) -> int | None:
        """The file's size."""
        return self._source.size_bytes

    @property
    def bytes_read(self) -> int:
        """How many of its bytes have been read."""
        return self._source.bytes_read

    def __iter__(self) -> Iterator[NamedTrades]:
        rest = b""
        for data in self._source.decompressed(_CHUNK_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if lines and self._is_in_long_line:
                del lines[0]
                self._is_in_long_line = False
            yield from self._runs(lines)
            if self._is_in_long_line:
                rest = b""
            elif len(rest) > _MAX_LINE_BYTES:
                self._lines += 1
                detail = f"is longer than {_MAX_LINE_BYTES:,} bytes"
                self._refuse(_RefusedLine(Reason.MALFORMED, detail))
                self._is_in_long_line, rest = True, b""
        yield from self._runs([rest])
        if self.refused.any():
            what = f"refused {counted(int(self.refused.sum()), 'line')}"
            report = f"{self.name}: {what} ({reasons_text(self.refused)})"
            if not self._accepted:
                raise InputError(f"{report}, and accepted none")
            log.warning("%s", report)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _runs(self, lines: list[bytes]) -> Iterator[NamedTrades]:
        """Yield the ticks of some lines, also those before a line that ends a strict source."""
        ticks: list[_Tick] = []
        error: InputError | None = None
        for line in lines:
            self._lines += 1
            try:
                tick = (
                    self._tick(text)
                    if (text := line.removeprefix(codecs.BOM_UTF8).strip())
                    else None
                )
                if tick is not None:
                    ticks.append(tick)
            except _RefusedLine as refused:
                try:
                    self._refuse(refused)
                except InputError as strict:
                    error = strict
                    break
        if ticks:
            self._accepted += len(ticks)
            symbol, *others = zip(*ticks, strict=True)
            columns = [np.array(column, np.int64) for column in others]
            yield NamedTrades(self._symbols, Trades(np.array(symbol, np.uint32), *columns))
        if error is not None:
            raise error

    def _refuse(self, refused: _RefusedLine) -> None:
        """Count the current line.

        Raises
        ------
        InputError
            If it ends the source.
        """
        if self._is_strict:
            raise InputError(f"{self.name}: line {self._lines:,}: {refused}")
        if self.refused.sum() < _LOGGED_LINES:
            log.warning("%s: refused line %d: %s", self.name, self._lines, refused)
        self.refused[refused.reason] += 1

    def _tick(self, line: bytes) -> _Tick | None:
        """Return the tick of a line, None for a record that is not a trade.

        Raises
        ------
        _RefusedLine
            When the line is neither a Tick nor a record.
        """
        try:
            entry = json.loads(line, parse_float=str, parse_constant=str)
        except ValueError as error:
            raise _RefusedLine(Reason.MALFORMED, f"is not JSON: {error}") from error
        except RecursionError as error:
            raise _RefusedLine(Reason.MALFORMED, "is not JSON: nested too deeply") from error
        if not isinstance(entry, dict):
            raise _RefusedLine(Reason.MALFORMED, "is not a JSON object")
        return self._of_record(entry) if "hd" in entry else self._of_tick(entry)

    def _of_tick(self, entry: Mapping[str, Any]) -> _Tick:
        symbol = self._symbol(entry)
        with _PRICE:
            price = parse_price(_nearest_nano(str(entry["price"])))
            if price <= 0 and not self._any_price:
                raise UsageError(f"price {entry['price']} is not above 0")
        with _VOLUME:
            volume = _positive("volume", _integer("volume", entry["volume"]))
        with _TIMESTAMP:
            given = (entry.get(name) for name in _TIMES)
            moment = next((each for each in given if each is not None and each != ""), None)
            time_ns = time.time_ns() if moment is None else _time(str(moment))
            return symbol, price, volume, _positive("time", time_ns), time_ns

    def _of_record(self, entry: Mapping[str, Any]) -> _Tick | None:
        if entry.get("action") != _TRADE:
            return None
        symbol = self._symbol(entry)
        with _PRICE:
            price = _price(entry["price"])
        with _VOLUME:
            size = _integer("size", entry["size"])
        with _TIMESTAMP:
            header = entry["hd"] if isinstance(entry["hd"], dict) else {}
            event_ns = _positive("time", _time(str(header["ts_event"])))
            due_ns = _time(str(entry.get("ts_recv") or event_ns))
        is_sent = price < UNDEF_PRICE and (price > 0 or self._any_price)
        if not is_sent or not 0 < size < UNDEF_ORDER_SIZE:
            self.left_out += 1
            return None
        return symbol, price, size, event_ns, due_ns

    def _symbol(self, entry: Mapping[str, Any]) -> int:
        with _SYMBOL:
            value = entry["symbol"]
            symbol = normal_symbol(value) if isinstance(value, str) else None
            if symbol is None:
                text = f"symbol {value!r} is not 1 to {MAX_SYMBOL_CHARS} ASCII characters"
                raise UsageError(text)
            return self._symbols.intern(symbol)


def _nearest_nano(price: str) -> str:
    """Round the text of a double, which may have seventeen digits, as an ingest server does."""
    try:
        return f"{Decimal(price).quantize(_NANO):f}"
    except InvalidOperation:
        return price  # not a number, or too large


def _price(value: object) -> int:
    """Return the price of a record: an integer at 1e-9, pretty a decimal, null where undefined."""
    if value is None:
        return UNDEF_PRICE
    text = str(value)
    return parse_price(text) if "." in text else _integer("price", value)


def _integer(name: str, value: object) -> int:
    number = _whole(str(value))
    if number is None:
        raise UsageError(f"{name} {value!r} is not a whole number")
    return number


def _time(text: str) -> int:
    number = _whole(text)
    return parse_time(text) if number is None else number


def _whole(text: str) -> int | None:
    """Return the whole number that a text is, also where it is written as a double."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # A number that is too large, perhaps by millions of digits, is not written out.
    if not number.is_finite() or number.adjusted() > _WHOLE_DIGITS:
        return None
    return int(number) if number == number.to_integral_value() else None


def _positive(name: str, value: int) -> int:
    if not 0 < value < 1 << 63:
        raise UsageError(f"{name} {value} is not above 0, or too large")
    return value
