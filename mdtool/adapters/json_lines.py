"""Ticks from JSON lines: a Tick each, as protobuf writes it, or a trade as `--json` writes it."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

import numpy as np

from mdtool.adapters.byte_source import ByteSource
from mdtool.core.errors import InputError, UsageError
from mdtool.core.symbols import MAX_SYMBOL_CHARS, SymbolTable, normal_symbol
from mdtool.core.trades import NamedTrades, Trades
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, parse_price, parse_time

_CHUNK_BYTES: Final = 1 << 18
_MAX_LINE_BYTES: Final = 1 << 16
_TRADE: Final = "T"
_NANO: Final = Decimal("1e-9")
_WHOLE_DIGITS: Final = 20
"""More than the digits of any int64."""

_Tick: TypeAlias = tuple[int, int, int, int, int]
"""Symbol, price, volume, exchange timestamp, and the time by which it is paced."""


def is_json_lines(source: ByteSource) -> bool:
    """Return whether the bytes begin as a JSON object does, perhaps after a byte order mark."""
    return source.peek().removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"


class JsonLines:
    """The ticks of a text with one JSON object a line.

    A Tick has `symbol`, `price`, `volume` and `exchange_timestamp`, the latter in nanoseconds or
    ISO-8601; the default is now. Its price, a double, is rounded to the nearest 1e-9. A DBN record
    as JSON, recognised by its `hd`, counts if it is a trade; it must have its `symbol`, and has its
    price at 1e-9 or, pretty, as a decimal. Whole numbers may be written as doubles, such as 1.0.
    A file may begin with a byte order mark, and so may each of several that follow each other.

    Parameters
    ----------
    source : ByteSource
        Closed together with this one.
    """

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._symbols = SymbolTable()
        self._lines = 0
        self.left_out = 0
        self.bytes_read = 0

    @property
    def name(self) -> str:
        """The file's name, or `stdin`."""
        return self._source.name

    @property
    def size_bytes(self) -> int | None:
        """The file's size."""
        return self._source.size_bytes

    def __iter__(self) -> Iterator[NamedTrades]:
        rest = b""
        while data := self._source.read(_CHUNK_BYTES):
            self.bytes_read += len(data)
            *lines, rest = (rest + data).split(b"\n")
            yield from self._runs(lines)
            if len(rest) > _MAX_LINE_BYTES:
                self._lines += 1
                raise self._error(f"is longer than {_MAX_LINE_BYTES:,} bytes")
        yield from self._runs([rest])

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _runs(self, lines: list[bytes]) -> Iterator[NamedTrades]:
        """Yield the ticks of some lines, also those before a line that is wrong."""
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
            except UsageError as wrong:
                error = self._error(str(wrong))
                break
            if tick is not None:
                ticks.append(tick)
        if ticks:
            symbol, *others = zip(*ticks, strict=True)
            columns = [np.array(column, np.int64) for column in others]
            yield NamedTrades(self._symbols, Trades(np.array(symbol, np.uint32), *columns))
        if error is not None:
            raise error

    def _tick(self, line: bytes) -> _Tick | None:
        """Return the tick of a line, None for a record that is not a trade.

        Raises
        ------
        UsageError
            When the line is neither a Tick nor a record.
        """
        try:
            entry = json.loads(line, parse_float=str, parse_constant=str)
        except ValueError as error:
            raise UsageError(f"is not JSON: {error}") from error
        except RecursionError as error:
            raise UsageError("is not JSON: nested too deeply") from error
        if not isinstance(entry, dict):
            raise UsageError("is not a JSON object")
        try:
            return self._of_record(entry) if "hd" in entry else self._of_tick(entry)
        except KeyError as error:
            raise UsageError(f"has no {error}") from error

    def _of_tick(self, entry: Mapping[str, Any]) -> _Tick:
        moment = entry.get("exchange_timestamp", entry.get("exchangeTimestamp"))
        time_ns = time.time_ns() if moment is None else _time(str(moment))
        price = parse_price(_nearest_nano(str(entry["price"])))
        if price <= 0:
            raise UsageError(f"price {entry['price']} is not above 0")
        volume = _positive("volume", _integer("volume", entry["volume"]))
        return self._symbol(entry["symbol"]), price, volume, _positive("time", time_ns), time_ns

    def _of_record(self, entry: Mapping[str, Any]) -> _Tick | None:
        if entry.get("action") != _TRADE:
            return None
        text = str(entry["price"])
        price = parse_price(text) if "." in text else _integer("price", entry["price"] or 0)
        size = _integer("size", entry["size"])
        header = entry["hd"] if isinstance(entry["hd"], dict) else {}
        event_ns = _time(str(header["ts_event"]))
        due_ns = _time(str(entry.get("ts_recv") or event_ns))
        if not 0 < price < UNDEF_PRICE or not 0 < size < UNDEF_ORDER_SIZE:
            self.left_out += 1
            return None
        return self._symbol(entry["symbol"]), price, size, _positive("time", event_ns), due_ns

    def _symbol(self, value: object) -> int:
        symbol = normal_symbol(value) if isinstance(value, str) else None
        if symbol is None:
            raise UsageError(f"symbol {value!r} is not 1 to {MAX_SYMBOL_CHARS} ASCII characters")
        return self._symbols.intern(symbol)

    def _error(self, what: str) -> InputError:
        return InputError(f"{self.name}: line {self._lines:,}: {what}")


def _nearest_nano(price: str) -> str:
    """Round the text of a double, which may have seventeen digits, as an ingest server does."""
    try:
        return f"{Decimal(price).quantize(_NANO):f}"
    except InvalidOperation:
        return price  # not a number, or too large


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
