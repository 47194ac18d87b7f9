"""Binance's public trades. Source: its WebSocket streams, and exchange information for steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from mdtool.adapters.live.messages import decoded, ms_to_ns, parts, request, word
from mdtool.adapters.live.port import Request
from mdtool.wire.source_stream import Event, Failed, Lost, Lot, Send, Subscribed, Trade

_REQUEST_ID: Final = 1
_PASSING: Final = frozenset({-1000, -1001, -1003, -1006, -1007, -1008, -1016, -1034})
"""Codes of errors that pass: internal ones, time-outs, too many requests or connections, a server
that is busy or shutting down."""


class BinanceSession:
    """Requests the steps of the symbols, then subscribes to their trades."""

    name = "binance"
    dataset = "BINANCE"
    instrument_class = "X"
    schemas = ("trades",)
    keys = ()
    url = "wss://data-stream.binance.vision/ws"

    def __init__(self, request: Request) -> None:
        self.symbols = list(dict.fromkeys(symbol.upper() for symbol in request.symbols))

    @property
    def lots_url(self) -> str:
        """As `Session.lots_url`."""
        symbols = json.dumps(self.symbols, separators=(",", ":"))
        return f"https://data-api.binance.vision/api/v3/exchangeInfo?symbols={quote(symbols)}"

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`."""
        streams = [f"{symbol.lower()}@trade" for symbol in self.symbols]
        yield Send(request({"method": "SUBSCRIBE", "params": streams, "id": _REQUEST_ID}))

    def receive(self, text: str) -> Iterator[Event]:
        """As `Session.receive`."""
        message = decoded(text)
        if word(message.get("e", "")) == "trade":
            yield Trade(
                message["s"],
                str(message["p"]),
                str(message["q"]),
                ms_to_ns(message["T"]),
                "A" if message["m"] else "B",
                int(message["t"]),
            )
        elif "symbols" in message:
            yield from parts(message["symbols"], self._lot)
        elif "code" in message or "error" in message:
            error = message.get("error") or message
            reason = str(error.get("msg") or error)
            yield Lost(reason) if error.get("code") in _PASSING else Failed(reason)
        elif message.get("id") == _REQUEST_ID:
            yield Subscribed()

    def _lot(self, part: dict[str, Any]) -> Lot | None:
        if part["symbol"] not in self.symbols:
            return None
        steps = [r["stepSize"] for r in part["filters"] if r.get("filterType") == "LOT_SIZE"]
        return Lot(part["symbol"], str(steps[0])) if steps else None
