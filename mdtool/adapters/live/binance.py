"""Binance's public trades. Source: its WebSocket streams, and exchange information for steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from mdtool.adapters.live.messages import decoded, request
from mdtool.adapters.live.port import Request
from mdtool.core.units import NS_PER_MS
from mdtool.wire.source_stream import Event, Failed, Lost, Lot, Send, Subscribed, Trade

_REQUEST_ID: Final = 1
_TOO_MANY_REQUESTS: Final = -1003


class BinanceSession:
    """Requests the steps of the symbols, then subscribes to their trades."""

    name = "binance"
    dataset = "BINANCE"
    instrument_class = "X"
    schemas = ("trades",)
    keys = ()
    url = "wss://data-stream.binance.vision/ws"

    def __init__(self, request: Request) -> None:
        self._symbols = list(dict.fromkeys(symbol.upper() for symbol in request.symbols))

    @property
    def lots_url(self) -> str:
        """As `Session.lots_url`."""
        symbols = json.dumps(self._symbols, separators=(",", ":"))
        return f"https://data-api.binance.vision/api/v3/exchangeInfo?symbols={quote(symbols)}"

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`."""
        streams = [f"{symbol.lower()}@trade" for symbol in self._symbols]
        yield Send(request({"method": "SUBSCRIBE", "params": streams, "id": _REQUEST_ID}))

    def receive(self, text: str) -> Iterator[Event]:
        """As `Session.receive`."""
        message = decoded(text)
        if message.get("e") == "trade":
            yield Trade(
                message["s"],
                message["p"],
                message["q"],
                message["T"] * NS_PER_MS,
                "A" if message["m"] else "B",
                int(message["t"]),
            )
        elif "symbols" in message:
            yield from _lots(message["symbols"])
        elif "code" in message or "error" in message:
            error = message.get("error") or message
            is_transient = error.get("code") == _TOO_MANY_REQUESTS
            yield (Lost if is_transient else Failed)(str(error.get("msg") or error))
        elif message.get("id") == _REQUEST_ID:
            yield Subscribed()


def _lots(symbols: list[dict[str, Any]]) -> Iterator[Event]:
    for each in symbols:
        for rule in each["filters"]:
            if rule.get("filterType") == "LOT_SIZE":
                yield Lot(each["symbol"], rule["stepSize"])
