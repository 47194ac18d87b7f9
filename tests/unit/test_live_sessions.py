"""What single sources say apart from what all have in common: texts in, events out."""

from __future__ import annotations

import json

import pytest

from mdtool.adapters.live.alpaca import AlpacaSession
from mdtool.adapters.live.binance import BinanceSession
from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.connections import Connections
from mdtool.adapters.live.finnhub import FinnhubSession
from mdtool.adapters.live.kraken import KrakenSession
from mdtool.adapters.live.port import Request
from mdtool.core.dtypes import RTYPE_MBP1, RTYPE_SYSTEM
from mdtool.core.errors import UsageError
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.dbn import DbnDecoder
from mdtool.wire.source_stream import (
    Event,
    Failed,
    Gap,
    Lost,
    Lot,
    Note,
    Quote,
    Rejected,
    Send,
    SourceEncoder,
    Subscribed,
    Trade,
)

AT = "2026-12-02T00:00:00.5Z"
AT_NS = 1_796_169_600_500_000_000


def events(session, message: object) -> list[Event]:
    return list(session.receive(json.dumps(message)))


def pairs(kind: str, **steps: float) -> dict:
    listed = [{"symbol": name, "qty_increment": step} for name, step in steps.items()]
    return {"channel": "instrument", "type": kind, "data": {"pairs": listed}}


def test_kraken_subscribes_to_the_pairs_that_there_are():
    session = KrakenSession(Request(["XBT", "DOGE", "NONE"]))
    lots, none, send = (
        events(session, pairs("snapshot", XBT=1e-8, OTHER=1.0))[:1],
        *events(session, pairs("snapshot", XBT=1e-8, DOGE=2, OTHER=1.0))[2:],
    )
    assert lots == [Lot("XBT", "1e-08")]
    assert none == Rejected("NONE", "there is no such pair")
    assert json.loads(send.text)["params"]["symbol"] == ["XBT", "DOGE"]


def test_kraken_tells_a_changed_step():
    session = KrakenSession(Request(["XBT"]))
    assert events(session, pairs("update", XBT=0.5)) == [Lot("XBT", "0.5")]


def test_a_source_fails_once_all_symbols_are_rejected():
    connections = Connections(KrakenSession, Request(["A", "B"]))
    connections.opened()
    received = connections.received(json.dumps(pairs("snapshot", C=1)))
    assert [type(event) for event in received] == [Rejected, Rejected, Failed]
    assert received[-1].reason == "B: there is no such pair"


def test_a_rejected_symbol_is_not_requested_again():
    connections = Connections(KrakenSession, Request(["A", "B"]))
    connections.received(json.dumps(pairs("snapshot", A=1)))
    connections.opened()
    (_, send) = connections.received(json.dumps(pairs("snapshot", A=1, B=1)))
    assert json.loads(send.text)["params"]["symbol"] == ["A"]


def test_kraken_failures_without_a_symbol():
    session = KrakenSession(Request(["A"]))
    refused = {"method": "subscribe", "success": False, "error": "Permission denied"}
    assert events(session, refused) == [Failed("Permission denied")]
    for reason in ("Busy", "Exceeded msg rate", "EService:Unavailable", "something new"):
        assert events(session, {**refused, "error": reason}) == [Lost(reason)]


def test_binance_sides_and_overload():
    session = BinanceSession(Request(["btcusdt"]))
    trade = {"e": "trade", "s": "BTCUSDT", "t": 5, "p": "1.0", "q": "2.0", "T": 7, "m": True}
    assert events(session, trade) == [Trade("BTCUSDT", "1.0", "2.0", 7_000_000, "A", 5)]
    assert events(session, {"code": -1003, "msg": "Too many"}) == [Lost("Too many")]
    assert events(session, {"result": None, "id": 1}) == [Subscribed()]
    assert "BTCUSDT" in session.lots_url


def test_finnhub_conditions_and_errors():
    session = FinnhubSession(Request(["AAPL"]))
    trade = {"s": "AAPL", "p": 1.5, "v": 2, "t": 7}
    kinds = [{**trade, "c": codes} for codes in (["1"], ["1", "12"], [], None)]
    found = events(session, {"type": "trade", "data": kinds})
    assert [event.is_regular for event in found[1:]] == [True, False, True, True]
    assert events(session, {"type": "error", "msg": "Invalid API key"}) == [
        Failed("Invalid API key", is_for_keys=True)
    ]
    said = "API limit reached. Please try again later."
    assert events(session, {"type": "error", "msg": said}) == [Lost(said)]
    assert events(session, {"type": "error", "msg": "Too many symbols"}) == [
        Rejected("", "Too many symbols")
    ]


def test_alpaca_trades_quotes_and_corrections():
    session = AlpacaSession(Request(["A"]))
    trade = {"T": "t", "S": "A", "i": 5, "x": "V", "p": 1.25, "s": 3, "c": ["@", "I"], "t": AT}
    quote = {"T": "q", "S": "A", "bp": 1, "bs": 2, "ap": 1.5, "as": 3, "t": AT}
    correction = {"T": "c", "S": "A", "x": "V", "oi": 5, "op": 1, "os": 2, "ci": 6, "cp": 3}
    cancel = {"T": "x", "S": "A", "x": "V", "i": 5, "p": 1, "s": 2}
    found = events(session, [trade, quote, {**correction, "cs": 4}, cancel])
    assert found == [
        Trade("A", "1.25", "3", AT_NS, "N", 5 << 8 | ord("V"), is_regular=False),
        Quote("A", "1", "2", "1.5", "3", AT_NS),
        Note(
            "A: trade 5 (sequence 1366) of 2 at 1 is corrected to 6 (sequence 1622) of 4 at 3",
        ),
        Note("A: trade 5 (sequence 1366) of 2 at 1 is cancelled"),
    ]


def of_alpaca(code: int) -> list[Event]:
    return events(AlpacaSession(Request(["A"])), [{"T": "error", "code": code, "msg": "no"}])


@pytest.mark.parametrize("code", [400, 401, 402, 405, 408, 409, 410])
def test_alpaca_rejects(code):
    assert of_alpaca(code) == [Failed(f"no ({code})", is_for_keys=code in {401, 402})]


@pytest.mark.parametrize("code", [404, 406, 500, 599, None])
def test_alpacas_errors_that_pass(code):
    assert of_alpaca(code) == [Lost(f"no ({code})")]


def test_alpaca_needs_one_authentication():
    assert of_alpaca(403) == [Rejected("", "no (403)")]


@pytest.mark.parametrize("code", [-1000, -1001, -1003, -1007, -1008, -1034])
def test_binances_errors_that_pass(code):
    session = BinanceSession(Request(["A"]))
    assert events(session, {"error": {"code": code, "msg": "no"}, "id": 1}) == [Lost("no")]


@pytest.mark.parametrize("code", [-1121, 2, 3])
def test_binance_rejects(code):
    session = BinanceSession(Request(["A"]))
    assert events(session, {"error": {"code": code, "msg": "no"}, "id": 1}) == [Failed("no")]


def test_alpaca_slow_clients_have_a_gap():
    session = AlpacaSession(Request(["A"]))
    error = {"T": "error", "code": 407, "msg": "slow client"}
    assert events(session, [error]) == [Gap("alpaca: slow client (407)")]


def test_alpaca_feeds_and_channels():
    chosen = SourceConfig(dataset="test", schema="mbp-1")
    session = AlpacaSession(Request(["FAKEPACA"], chosen))
    assert session.url.endswith("/v2/test")
    (send,) = events(session, [{"T": "success", "msg": "authenticated"}])
    assert isinstance(send, Send)
    assert json.loads(send.text) == {"action": "subscribe", "quotes": ["FAKEPACA"]}
    with pytest.raises(UsageError, match="alpaca has iex, sip, test"):
        AlpacaSession(Request(["A"], SourceConfig(dataset="nope")))


def encoded(events: list[Event], **settings) -> tuple[SourceEncoder, dict[int, list]]:
    """The records of a stream by rtype, and what encoded them."""
    encoder = SourceEncoder("TEST", AT_NS, "K", **settings)
    encoder.add(events, AT_NS)
    runs = DbnDecoder("test").decode(encoder.take())
    return encoder, {int(run.records["rtype"][0]): list(run.records) for run in runs}


def test_quotes_are_mbp_1_with_undefined_sides():
    _, records = encoded([Lot("A", "1"), Quote("A", "1.5", "2", "0", "0", AT_NS)])
    (quote,) = records[RTYPE_MBP1]
    assert (quote["bid_px_00"], quote["bid_sz_00"]) == (1_500_000_000, 2)
    assert (quote["ask_px_00"], quote["ask_sz_00"]) == (UNDEF_PRICE, 0)


def test_irregular_trades_are_left_out_when_they_do_not_count():
    trades = [Trade("A", "1", "1", AT_NS, is_regular=is_regular) for is_regular in (True, False)]
    encoder, records = encoded([Lot("A", "1"), *trades], is_regular_only=True)
    assert len(records[0]) == 1
    assert encoder.counts == {"trades": 1, "irregular": 1}


def test_corrections_are_system_records():
    _, records = encoded([Note("A: trade 5 is cancelled")])
    assert records[RTYPE_SYSTEM][0]["msg"] == b"A: trade 5 is cancelled"


def test_a_trade_of_absurd_size_is_refused():
    encoder, records = encoded([Lot("A", "0.00000001"), Trade("A", "1", "1" * 18, AT_NS)])
    assert 0 not in records
    assert encoder.counts == {"size": 1}


@pytest.mark.parametrize("lot", ["A", "=1", "A=", "A=x", "A=0", "A=-1", "A=1e-10"])
def test_lots_that_are_none(lot):
    with pytest.raises(UsageError, match="is not SYMBOL=STEP"):
        SourceConfig(lot=lot).lots()
    assert SourceConfig(lot="A=1, B=0.5").lots() == {"A": 10**9, "B": 5 * 10**8}
