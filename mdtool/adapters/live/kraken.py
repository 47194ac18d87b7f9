"""Kraken's public trades. Source: its WebSocket API, version 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from mdtool.adapters.live.messages import decoded, request
from mdtool.adapters.live.port import Request
from mdtool.wire.source_stream import Event, Failed, Lot, Rejected, Send, Subscribed, Trade, time_ns

_SIDES: Final = {"buy": "B", "sell": "A"}


class KrakenSession:
    """Asks for the steps of all pairs, then subscribes to the trades of those that there are.

    A snapshot of the last trades is left out: they are not new.
    """

    name = "kraken"
    dataset = "KRAKEN"
    instrument_class = "X"
    schemas = ("trades",)
    keys = ()
    url = "wss://ws.kraken.com/v2"
    lots_url = None

    def __init__(self, request: Request) -> None:
        self._symbols = list(dict.fromkeys(request.symbols))

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`."""
        yield Send(request({"method": "subscribe", "params": {"channel": "instrument"}}))

    def receive(self, text: str) -> Iterable[Event]:
        """As `Session.receive`."""
        message = decoded(text)
        channel = message.get("channel")
        if channel == "trade":
            return _trades(message["data"]) if message["type"] == "update" else ()
        if channel == "instrument":
            return self._instruments(message["type"], message["data"]["pairs"])
        return self._answer(message) if message.get("method") == "subscribe" else ()

    def _instruments(self, kind: str, pairs: list[dict[str, object]]) -> Iterator[Event]:
        steps = {str(pair["symbol"]): pair.get("qty_increment") for pair in pairs}
        known = [symbol for symbol in self._symbols if steps.get(symbol) is not None]
        for symbol in known:
            yield Lot(symbol, str(steps[symbol]))
        if kind != "snapshot":
            return
        for symbol in self._symbols:
            if symbol not in known:
                yield Rejected(symbol, "there is no such pair")
        if known:
            trades = {"channel": "trade", "symbol": known, "snapshot": False}
            yield Send(request({"method": "subscribe", "params": trades}))

    def _answer(self, message: dict[str, object]) -> Iterator[Event]:
        result = message.get("result") or {}
        assert isinstance(result, dict)
        if message.get("success") is False:
            symbol = str(message.get("symbol") or result.get("symbol") or "")
            reason = str(message.get("error"))
            yield Rejected(symbol, reason) if symbol else Failed(reason)
        elif result.get("channel") == "trade":
            yield Subscribed()


def _trades(trades: list[dict[str, str]]) -> Iterator[Event]:
    for each in trades:
        yield Trade(
            each["symbol"],
            str(each["price"]),
            str(each["qty"]),
            time_ns(each["timestamp"]),
            _SIDES.get(each["side"], "N"),
            int(each["trade_id"]),
        )
