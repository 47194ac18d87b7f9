"""Every live source, against a server that speaks as it does: what arrives, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import logging

import pytest
from aiohttp import web

from mdtool.adapters.live import SOURCES
from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING, RTYPE_SYSTEM, RTYPE_TRADE
from mdtool.core.errors import PeerError, UsageError
from mdtool.core.stream_warnings import warnings_in
from mdtool.wire.dbn_records import RTYPE_DEFINITION
from mdtool.wire.lot_definitions import lot_steps
from tests.support.live_sources import AT_NS, SERVERS, Binance, Kraken, reading, subscribed
from tests.support.services import logged
from tests.support.waiting import bounded


@pytest.fixture(params=SERVERS)
async def server(request, monkeypatch):
    made = SERVERS[request.param]()
    for name, value in made.keys.items():
        monkeypatch.setenv(name, value)
    async with made.running():
        yield made


def one_lot(server) -> tuple[str, int]:
    """A size of whole lots as text, and how many."""
    return ("0.50002", 50_002) if server.has_lots else ("120", 120)


def test_every_source_has_a_server_or_is_a_gateway():
    assert set(SOURCES) - set(SERVERS) <= {"databento"}


async def test_trades_are_exact_and_come_behind_their_symbol_and_lot(server):
    symbol = server.symbols[0]
    size, lots = one_lot(server)
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(server.trade(symbol, "50123.45", size, AT_NS, 1))
        mapping = await reader.next()
        definition = await reader.next()
        trades = await reader.next()
    assert mapping.rtype == RTYPE_SYMBOL_MAPPING
    assert definition.rtype == RTYPE_DEFINITION
    step = 10_000 if server.has_lots else 10**9
    assert lot_steps(definition.records) == {symbol: step}
    assert trades.symbols.tolist() == [symbol]
    (record,) = trades.records
    assert record["price"] == 50_123_450_000_000
    assert record["size"] == lots
    assert record["ts_event"] == AT_NS
    assert record["action"] == b"T"
    assert record["side"] in ({b"B"} if server.has_lots else {b"N"})


async def test_a_number_that_no_float_holds(server):
    async with reading(server) as reader:
        client = await subscribed(server)
        size = "42950.00002" if server.has_lots else "4294967294"
        await client.say(server.trade(server.symbols[0], "9007199254.740993001", size, AT_NS, 1))
        trades = (await reader.of(RTYPE_TRADE)).records
    assert len(trades) == (2 if server.has_lots else 1)
    assert set(trades["price"].tolist()) == {9_007_199_254_740_993_001}
    total = int(trades["size"].astype("i8").sum())
    assert total == (4_295_000_002 if server.has_lots else 4_294_967_294)


async def test_pings_and_messages_that_bring_nothing(server):
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.socket.ping(b"20s")
        async with bounded():
            assert await client.pongs.get() == b"20s"
        await client.say(*server.chatter())
        await client.say(server.trade(server.symbols[0], "10", one_lot(server)[0], AT_NS, 9))
        trades = (await reader.of(RTYPE_TRADE)).records
    assert trades["price"].tolist() == [10 * 10**9]
    assert sum(reader.source.counts.values()) == 1


async def test_a_lost_connection_is_a_gap_and_repeated_trades_are_left_out(server):
    size, _ = one_lot(server)
    trades = [server.trade(server.symbols[0], str(n), size, AT_NS, n) for n in (1, 2, 3)]
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(*trades[:2])
        seen = (await reader.of(RTYPE_TRADE)).records["price"].tolist()
        while len(seen) < 2:
            seen += (await reader.of(RTYPE_TRADE)).records["price"].tolist()
        client.abort()
        (gap,) = warnings_in((await reader.of(RTYPE_SYSTEM)).records)
        client = await subscribed(server)
        await client.say(*trades[1:])
        after: list[int] = []
        while 3 * 10**9 not in after:
            after += (await reader.of(RTYPE_TRADE)).records["price"].tolist()
    assert gap.kind == "skipped_records"
    assert gap.text.startswith(f"{server.source}: ")
    assert after == ([3 * 10**9] if server.has_ids else [2 * 10**9, 3 * 10**9])
    assert reader.source.counts["gaps"] == 1
    assert reader.source.counts["duplicates"] == (1 if server.has_ids else 0)


async def test_the_daily_disconnect(server, caplog):
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(server.trade(server.symbols[0], "1", one_lot(server)[0], AT_NS, 1))
        await reader.of(RTYPE_TRADE)
        await client.socket.close(code=1001, message=b"a day is over")
        (gap,) = warnings_in((await reader.of(RTYPE_SYSTEM)).records)
        await subscribed(server)
    assert "closed by the server (1001, a day is over)" in gap.text
    assert server.connections == 2


@pytest.mark.parametrize("is_read", [False, True])
async def test_an_end_leaves_what_has_come_and_nothing_more(server, is_read):
    """Whether it was read before, or a reader waits meanwhile."""
    size, _ = one_lot(server)
    async with reading(server) as reader:
        client = await subscribed(server)
        for number in (1, 2, 3):
            await client.say(server.trade(server.symbols[0], str(number), size, AT_NS, number))
        if is_read:
            rest = asyncio.create_task(prices_of(reader))
        await client.socket.ping(b"all")
        async with bounded():
            assert await client.pongs.get() == b"all"
        reader.source.end()
        prices = await rest if is_read else await prices_of(reader)
    assert prices == [10**9, 2 * 10**9, 3 * 10**9]
    assert reader.source.counts["trades"] == 3


async def prices_of(reader) -> list[int]:
    """Those of all trades to the end."""
    prices = []
    while (batch := await reader.next()) is not None:
        if batch.rtype == RTYPE_TRADE:
            prices += batch.records["price"].tolist()
    return prices


async def test_silence_ends_a_connection_that_answers_no_ping(server):
    server.is_deaf = True
    size, _ = one_lot(server)
    async with reading(server, silence_s=0.1) as reader:
        reading_gaps = asyncio.create_task(reader.of(RTYPE_SYSTEM))
        while not reading_gaps.done():  # a connection may be lost before anything is said
            client = await subscribed(server)
            with contextlib.suppress(ConnectionError):
                await client.say(server.trade(server.symbols[0], "1", size, AT_NS, 1))
        gap, *_ = warnings_in(reading_gaps.result().records)
        await subscribed(server)
    assert "silent for 0.1 s" in gap.text


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", "1e999", '"x"', "[[" * 5000, '{"type":"trade","data":7}', "\x00"],
)
async def test_garbage_is_counted_and_skipped(server, text):
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(text)
        await client.socket.send_bytes(b"\xff\xfe")
        await client.say(server.trade(server.symbols[0], "10", one_lot(server)[0], AT_NS, 9))
        trades = (await reader.of(RTYPE_TRADE)).records
    assert trades["price"].tolist() == [10 * 10**9]
    assert reader.source.counts["malformed"] >= 1


WRONG_VALUES = {
    "null": "null",
    "true": "true",
    "a list": "[[1]]",
    "an object": '{"a":[1]}',
    "not a number": "NaN",
    "infinity": "-Infinity",
    "a huge exponent": "1e999999",
    "a tiny exponent": '"1e-999999"',
    "a megabyte": f'"{"y" * 1_000_000}"',
    "a long number": "1" * 5_000,
    "another kind": '"x"',
    "a fraction": "0.3333333333333",
    "far below": "-99999999999999999999999",
    "a year": '"9999-12-31T23:59:59Z"',
    "half a character": '"\\ud800"',
}
"""JSON that is in no field of a valid trade."""


@pytest.mark.parametrize("value", WRONG_VALUES.values(), ids=WRONG_VALUES)
async def test_a_wrong_value_in_any_field_is_counted_and_all_others_are_read(server, value):
    size, _ = one_lot(server)
    valid = [server.trade(server.symbols[0], str(n), size, AT_NS, n) for n in (1, 2)]
    parsed = json.loads(valid[0])
    paths = list(inner_paths(parsed))
    async with reading(server) as reader:
        client = await subscribed(server)
        for path in paths:
            await client.say(with_value(parsed, path, value))
        await client.say(valid[1])
        prices = []
        while 2 * 10**9 not in prices:
            prices += (await reader.of(RTYPE_TRADE)).records["price"].tolist()
    counts = reader.source.counts
    assert counts["trades"] == len(prices)
    assert counts.total() > len([path for path in paths if path[-1] not in server.kinds])


def inner_paths(value: object, path: tuple = ()):
    """Where the values of a message are, itself apart."""
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, list | dict):
            yield from inner_paths(inner, (*path, key))


def with_value(message: object, path: tuple, value: str) -> str:
    """The text of a message with other JSON in one place."""
    changed = copy.deepcopy(message)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "HERE"
    return json.dumps(changed).replace('"HERE"', value)


async def test_the_other_trades_of_a_message_count(server):
    """Of a message with several, of which one has no price, or is no trade at all."""
    size, _ = one_lot(server)
    texts = [server.trade(server.symbols[0], str(n), size, AT_NS, n) for n in (1, 2, 3)]
    joined = server.joined(texts[0], "null", texts[1], '{"T":"t"}', texts[2])
    if joined is None:
        pytest.skip("a message is one trade")
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(joined)
        trades = (await reader.of(RTYPE_TRADE)).records
    assert trades["price"].tolist() == [10**9, 2 * 10**9, 3 * 10**9]
    assert reader.source.counts == {"trades": 3, "malformed": 2}


async def test_what_is_no_trade_is_refused_by_reason(server):
    symbol = server.symbols[0]
    size, lots = one_lot(server)
    bad = [
        server.trade("OTHER", "1", size, AT_NS, 1),
        server.trade(symbol, "1.0000000001", size, AT_NS, 2),
        server.trade(symbol, "1", "-1", AT_NS, 3),
        server.trade(symbol, "1", size + "1" if server.has_lots else "0.5", AT_NS, 4),
        server.trade(symbol, "1", size, 10**15, 5),
    ]
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(*bad, server.trade(symbol, "7", size, AT_NS, 6))
        trades = (await reader.of(RTYPE_TRADE)).records
    assert trades["size"].tolist() == [lots]
    wrong = dict.fromkeys(("symbol", "price", "size", "lot", "timestamp"), 1)
    assert reader.source.counts == {**wrong, "trades": 1}


async def test_the_users_lot_goes_before_the_sources(server):
    symbol = server.symbols[0]
    async with reading(server, lot=f"{symbol}=0.0000001") as reader:
        client = await subscribed(server)
        await client.say(server.trade(symbol, "1", "0.0000003", AT_NS, 1))
        definitions = (await reader.of(RTYPE_DEFINITION)).records
        trades = (await reader.of(RTYPE_TRADE)).records
    assert lot_steps(definitions) == {symbol: 100}
    assert trades["size"].tolist() == [3]


async def test_keys_are_rejected_once_and_never_shown(server, caplog, tmp_path):
    if not server.keys:
        pytest.skip("a public source")
    caplog.set_level(logging.DEBUG)
    server.accepts_keys = False
    with pytest.raises(PeerError, match=rf"{server.source}: rejected .* check") as raised:
        async with reading(server, record=str(tmp_path)) as reader:
            await reader.of(RTYPE_TRADE)
    assert server.connections == 1
    recorded = "".join(path.read_text() for path in tmp_path.iterdir())
    for key in server.keys.values():
        assert key not in caplog.text + str(raised.value) + recorded


async def test_keys_that_are_missing(server, monkeypatch):
    for name in server.keys:
        monkeypatch.delenv(name)
        with pytest.raises(UsageError, match=name):
            async with reading(server):
                pass


async def test_keys_of_a_file(server, monkeypatch, tmp_path):
    if not server.keys:
        pytest.skip("a public source")
    for name in server.keys:
        monkeypatch.delenv(name)
    file = tmp_path / "keys"
    file.write_text("# mine\n" + "".join(f"{name}={key}\n" for name, key in server.keys.items()))
    file.chmod(0o600)
    async with reading(server, keys=str(file)):
        await subscribed(server)


async def test_too_many_symbols(server):
    server.max_symbols = 1
    size, _ = one_lot(server)
    if server.source in {"binance", "alpaca"}:  # which reject all of them
        with pytest.raises(PeerError, match=f"{server.source}: rejected"):
            async with reading(server, *server.symbols) as reader:
                await reader.of(RTYPE_TRADE)
        return
    with logged("mdtool.adapters.live") as log:
        async with bounded(), reading(server, *server.symbols) as reader:
            client = await subscribed(server)
            await client.say(server.trade(server.symbols[0], "5", size, AT_NS, 1))
            trades = await reader.of(RTYPE_TRADE)
            await log.heard("rejected")
    assert trades.symbols.tolist() == [server.symbols[0]]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_is_down_at_first(server, status):
    server.status = status
    async with reading(server) as reader:
        async with bounded():
            for _ in range(3):
                await server.arrivals.get()
        server.status = 101
        client = await subscribed(server)
        await client.say(server.trade(server.symbols[0], "5", one_lot(server)[0], AT_NS, 1))
        await reader.of(RTYPE_TRADE)
    assert reader.source.counts["gaps"] == 0


async def test_an_error_of_the_moment_is_waited_out(server):
    size, _ = one_lot(server)
    async with reading(server) as reader:
        client = await subscribed(server)
        await client.say(server.busy())
        client = await subscribed(server)
        await client.say(server.trade(server.symbols[0], "5", size, AT_NS, 1))
        await reader.of(RTYPE_TRADE)


async def test_a_symbol_that_has_to_wait_is_requested_again_alone():
    """Twice; meanwhile the other one is served."""
    server = Kraken()
    server.busy_for = ["ETH/USD", "ETH/USD"]
    async with server.running(), reading(server, *server.symbols) as reader:
        client = await subscribed(server)
        await client.say(server.trade("BTC/USD", "5", "0.5", AT_NS, 1))
        await reader.of(RTYPE_TRADE)
        assert await subscribed(server) is client
    *_, first, again, last = (said["params"]["symbol"] for said in server.heard[1:])
    assert (first, again, last) == (list(server.symbols), ["ETH/USD"], ["ETH/USD"])
    assert server.connections == 1
    assert reader.source.counts["gaps"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=503, text="<html>"),
        web.Response(status=429, text='{"code":-1003,"msg":"Too many requests"}'),
        web.Response(status=400, text='{"code":-1000,"msg":"unknown"}'),
        web.Response(text="<html>"),
        web.Response(text='{"symbols":[{"symbol":"BTCUSDT","filters":7}]}'),
    ],
    ids=["unavailable", "too many", "unknown", "no JSON", "no lots"],
)
async def test_lots_that_are_not_told_at_first(answer):
    server = Binance()
    server.instead = [answer]
    async with server.running(), reading(server) as reader:
        client = await subscribed(server)
        await client.say(server.trade(server.symbols[0], "5", "0.5", AT_NS, 1))
        await reader.of(RTYPE_TRADE)


async def test_a_country_that_is_not_served(server):
    server.status = 451
    with pytest.raises(PeerError, match=rf"{server.source}: rejected \(status 451\)$"):
        async with reading(server) as reader:
            await reader.of(RTYPE_TRADE)


async def test_a_reason_without_end_is_one_short_line(server, caplog):
    async with reading(server):
        client = await subscribed(server)
        await client.say(server.busy("try again\\n\\u001b[2J" + "y" * 1_000_000))
        await subscribed(server)
    (line,) = (each.getMessage() for each in caplog.records if "try again" in each.getMessage())
    assert len(line) < 300
    assert line.isprintable()


async def test_a_recording_gives_the_same_stream(server, tmp_path):
    size, _ = one_lot(server)
    raw = []
    async with reading(server, *server.symbols, record=str(tmp_path)) as reader:
        client = await subscribed(server)
        await client.say(server.trade(server.symbols[0], "1.5", size, AT_NS, 1), "garbage")
        raw += [await reader.of(RTYPE_TRADE)]
        client.abort()
        raw += [await reader.of(RTYPE_SYSTEM)]
        client = await subscribed(server)
        await client.say(server.trade(server.symbols[1], "2.5", "3", AT_NS + 10**6, 2))
        raw += [await reader.of(RTYPE_TRADE)]
    async with reading(server, *server.symbols, replay=str(tmp_path)) as again:
        for batch in raw:
            same = await again.of(batch.rtype)
            assert same.records.tobytes() == batch.records.tobytes()
            assert same.symbols.tolist() == batch.symbols.tolist()
        assert await again.next() is None
    assert again.source.counts == reader.source.counts
    async with reading(server, *server.symbols, replay=str(tmp_path)) as ended:
        ended.source.end()
        assert await ended.next() is None
    (file,) = tmp_path.iterdir()
    messages = [line.split("\t")[2] for line in file.read_text().splitlines()]
    assert any(server.symbols[1] in text and json.loads(text) for text in messages[1:])
