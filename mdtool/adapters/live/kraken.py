"""Kraken's public trades. Source: its WebSocket API, version 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from mdtool.adapters.live.messages import decoded, parts, rejection, request, word
from mdtool.adapters.live.port import Request
from mdtool.wire.source_stream import (
    Event,
    Lost,
    Lot,
    Postponed,
    Rejected,
    Send,
    Subscribed,
    Trade,
    time_ns,
)

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
        self.symbols = list(dict.fromkeys(request.symbols))

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`."""
        yield Send(request({"method": "subscribe", "params": {"channel": "instrument"}}))

    def receive(self, text: str) -> Iterable[Event]:
        """As `Session.receive`."""
        message = decoded(text)
        channel = word(message.get("channel", ""))
        if channel == "trade":
            return parts(message["data"], _trade) if word(message["type"]) == "update" else ()
        if channel == "instrument":
            return self._instruments(word(message["type"]), message["data"]["pairs"])
        is_answer = message.get("method") == "subscribe" or message.get("success") is False
        return self._answer(message) if is_answer else ()

    def _instruments(self, kind: str, pairs: object) -> Iterator[Event]:
        known = []
        for event in parts(pairs, self._lot):
            if isinstance(event, Lot):
                known.append(event.symbol)
            yield event
        if kind != "snapshot":
            return
        for symbol in self.symbols:
            if symbol not in known:
                yield Rejected(symbol, "there is no such pair")
        if known:
            yield Send(_subscription(known))

    def _lot(self, pair: dict[str, Any]) -> Lot | None:
        symbol, step = pair["symbol"], pair.get("qty_increment")
        return Lot(symbol, str(step)) if symbol in self.symbols and step is not None else None

    def _answer(self, message: dict[str, object]) -> Iterator[Event]:
        result = message.get("result") or {}
        assert isinstance(result, dict)
        if message.get("success") is False:
            found = message.get("symbol") or result.get("symbol")
            symbol = str(found) if found else None
            error = rejection(str(message.get("error")), symbol)
            if isinstance(error, Lost) and symbol in self.symbols:
                yield Postponed(_subscription([symbol]), error.reason)
            else:
                yield error
        elif result.get("channel") == "trade":
            yield Subscribed()


def _subscription(symbols: Sequence[str]) -> str:
    trades = {"channel": "trade", "symbol": symbols, "snapshot": False}
    return request({"method": "subscribe", "params": trades})


def _trade(part: dict[str, Any]) -> Trade:
    return Trade(
        part["symbol"],
        str(part["price"]),
        str(part["qty"]),
        time_ns(part["timestamp"]),
        _SIDES.get(part["side"], "N"),
        int(part["trade_id"]),
    )
