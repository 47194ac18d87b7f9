"""`mdtool digest`: the same trades have one digest, whatever they came through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess

import aiohttp
import pytest

from mdtool.adapters.stores import open_history
from mdtool.engine.digest import TradeDigest
from mdtool.services.digest import trades_of_rows
from tests.support.commands import MDTOOL, completed, output_of
from tests.support.kafka_topics import url_of
from tests.support.live_clients import gateway
from tests.support.services import service
from tests.support.supervised import FREE_PORTS, check, serve
from tests.support.waiting import WITHIN_S, wait_until

pytestmark = pytest.mark.usefixtures("no_settings")

N_TRADES = 900
"""Few enough that a socket's subscriber misses none."""
N_FIRST = 50
"""Of every symbol, and no more than a subscription begins with."""


@pytest.fixture(scope="module")
def trades(tmp_path_factory):
    """A file of trades of several symbols, in order of time."""
    path = tmp_path_factory.mktemp("trades") / "trades.dbn"
    output_of("simulate", "--schema", "trades", "-l", N_TRADES, "-q", "-o", path)
    return path


def digest(*arguments: object, stdin: bytes = b"") -> str:
    """What the command prints of all rows together."""
    found, rows, name = output_of("digest", *arguments, "-q", stdin=stdin).decode().split()
    assert name == "all"
    return f"{found} {rows}"


def by_symbol(path) -> list[dict]:
    *rows, total = output_of("digest", path, "--by", "symbol", "-J", "-q").splitlines()
    assert json.loads(total)["symbol"] == ""
    return list(map(json.loads, rows))


def totals(of: TradeDigest) -> str:
    return f"{of.total().digest} {of.total().rows}"


def piped(*arguments: object) -> bytes:
    ended = completed(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_containers_and_batches(trades, tmp_path):
    expected = digest(trades)
    compressed = tmp_path / "trades.dbn.zst"
    output_of("replay-dbn", trades, "-q", "-o", compressed)
    halves = [tmp_path / "first.dbn", tmp_path / "then.dbn"]
    middle = N_TRADES // 2
    output_of("replay-dbn", trades, "-q", "-l", middle, "-o", halves[0])
    end = json.loads(piped("replay-dbn", trades, "-q", "-J").splitlines()[middle])["ts_recv"]
    output_of("replay-dbn", trades, "-q", "--start", end, "-o", halves[1])
    lines = tmp_path / "ticks.jsonl"
    with lines.open("w") as file:
        for row in map(json.loads, piped("replay-dbn", trades, "-q", "-J", "-s").splitlines()):
            tick = {"symbol": row["symbol"].lower(), "price": int(row["price"]) / 1e9}
            tick |= {"volume": row["size"], "exchange_timestamp": int(row["hd"]["ts_event"])}
            file.write(json.dumps(tick) + "\n")
    assert digest(compressed) == expected
    assert digest(*halves) == expected
    assert digest("-", stdin=piped("replay-dbn", trades, "-q")) == expected
    assert digest(lines) == expected


async def test_the_live_gateway_and_the_official_client(trades, tmp_path):
    pytest.importorskip("databento", reason="the official client is not installed")
    path = tmp_path / "live.dbn"
    async with gateway(trades) as address:
        command = [*MDTOOL, "ingest", "databento", "ALL_SYMBOLS", "--gateway", address]
        metadata = await asyncio.to_thread(output_of, "info", "-J", trades)
        dataset = json.loads(metadata)["dataset"]
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--dataset", dataset, "-o", str(path)),
            env={**os.environ, "DATABENTO_API_KEY": "k" * 32},
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(WITHIN_S):
            _, errors = await process.communicate()
    assert process.returncode == 0, errors
    assert digest(path) == digest(trades)


async def test_tcp_stores_rest_and_stream(trades, tmp_path):
    expected = digest(trades)
    with serve("all", "-J", "--data-dir", tmp_path / "data", *FREE_PORTS) as services:
        addresses = await asyncio.to_thread(services.addresses, 4)
        symbols = [
            line.split()[2]
            for line in output_of("digest", trades, "--by", "symbol", "-q").decode().splitlines()
        ][:-1]
        async with following(addresses["gateway"], symbols) as rows:
            send = ("send", trades, addresses["serve-tcp"], "--rate", 2_000, "--stream-id", "s")
            streamed, heard = TradeDigest(), set()
            # A subscription begins with the latest trades: once some have come, it has begun.
            for count in (N_FIRST, N_TRADES):
                await asyncio.to_thread(completed, *send, "--limit", count, "-q")
                async with asyncio.timeout(WITHIN_S):
                    async for symbol, row in rows:
                        heard.add(symbol)
                        streamed.take(trades_of_rows(symbol, [row]))
                        if streamed.total().rows == count:
                            break
                assert heard == set(symbols)
        same = await asyncio.to_thread(check, addresses, "--digest", str(trades))
        other = tmp_path / "other.dbn"
        output_of("replay-dbn", trades, "-q", "-l", N_TRADES + 1, "-o", other)
        output_of("replay-dbn", trades, "-q", "-l", 10, "--symbols", symbols[0], "-f", "-o", other)
        differs = await asyncio.to_thread(check, addresses, "--digest", str(other))
        fewer = tmp_path / "fewer.dbn"
        named = ("--symbols", ",".join(symbols[1:]))
        output_of("replay-dbn", trades, "-q", *named, "-o", fewer)
        has_more = await asyncio.to_thread(check, addresses, "--digest", str(fewer))
        (store,) = (tmp_path / "data").rglob("*.db")
        assert digest(f"sqlite:///{store}") == expected
    assert totals(streamed) == expected
    assert same.returncode == 0, same.stderr
    assert expected.split()[0] in same.stdout
    assert differs.returncode == 1
    assert f"other trades than expected ({symbols[0]}: 10 and " in differs.stderr
    assert has_more.returncode == 1
    assert f"other trades than expected ({symbols[0]}: 0 and " in has_more.stderr


@contextlib.asynccontextmanager
async def following(address: str, symbols: list[str]):
    """The trades that `/stream` sends, with their symbols, from now on."""
    url = f"http://{address}/stream"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        request = {"op": "subscribe", "id": 1, "channel": "trades", "symbols": symbols}
        await socket.send_json(request)
        assert (await socket.receive_json())["ok"]

        async def rows():
            async for message in socket:
                said = json.loads(message.data)
                assert "missed" not in said, said
                for row in said["data"] if isinstance(said["data"], list) else [said["data"]]:
                    yield said["symbol"], row

        yield rows()


def test_kafka(trades, kafka, tmp_path):
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    with (
        service("serve-tcp", "--port", 0, "--bus", bus) as ingest,
        service("store", "--bus", bus, "--store", store),
    ):
        output_of("send", trades, ingest.address, "-q")
        wait_until(lambda: stored(store) == N_TRADES)
        assert digest(store) == digest(trades)


def stored(url: str) -> int:
    with open_history(url) as history:
        return sum(each.trade_count for each in history.symbols())


def test_book_states(tmp_path):
    orders, depth = tmp_path / "mbo.dbn", tmp_path / "depth.mbp-10.dbn"
    output_of("simulate", "-l", 3_000, "-q", "-o", orders)
    output_of("book", orders, "--emit", "event", "-q", "-o", depth)
    expected = digest(orders, "--of", "books")
    assert digest(depth, "--of", "books") == expected
    assert digest("-", "--of", "books", stdin=orders.read_bytes()) == expected
    cut = tmp_path / "cut.dbn"
    output_of("replay-dbn", orders, "-l", 2_990, "-q", "-o", cut)
    assert digest(cut, "--of", "books") != expected


def test_lines_by_symbol(trades):
    rows = [
        json.loads(line)
        for line in output_of("digest", trades, "--by", "symbol", "-J", "-q").splitlines()
    ]
    assert sum(row["rows"] for row in rows[:-1]) == rows[-1]["rows"] == N_TRADES
    for row in rows[:-1]:
        assert digest(trades, "--symbols", row["symbol"]).split()[1] == str(row["rows"])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--of", "bars"], 2, "choose from trades, books"),
        (["--by", "day"], 2, "only by symbol"),
        (["--of", "books"], 1, "no MBO or MBP-10 records"),
        (["--of", "books", "--schema", "trades"], 2, "leave it out for books"),
    ],
)
def test_wrong_usage(trades, arguments, status, said):
    output_of("digest", trades, *arguments, "-q", status=status, said=said)
