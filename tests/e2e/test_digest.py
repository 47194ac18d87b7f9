"""`mdtool digest`: the same trades have one digest, whatever they came through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from mdtool.adapters.stores import open_history
from mdtool.engine.digest import TradeDigest
from mdtool.services.digest import digest_gateway, trades_of_rows
from mdtool.wire.live import Start
from tests.reference.digest import digests
from tests.support.commands import MDTOOL, output_of
from tests.support.kafka_topics import url_of
from tests.support.live_clients import KEY, client, gateway, wants
from tests.support.services import service
from tests.support.supervised import FREE_PORTS, check, serve
from tests.support.waiting import WITHIN_S, wait_until

pytestmark = pytest.mark.usefixtures("no_settings")

DATASET = "MDTOOL.SIM"
SYMBOLS = ["AAPL", "AMZN", "GOOG", "MSFT", "TSLA"]
N_TRADES = 900
"""Few enough that a socket's subscriber misses none."""
N_FIRST = 50
"""Of every symbol, and no more than a subscription begins with."""


@pytest.fixture(scope="module")
def trades(tmp_path_factory) -> Path:
    """A file of trades of several symbols, in order of time."""
    path = tmp_path_factory.mktemp("trades") / "trades.dbn"
    output_of("simulate", "--schema", "trades", "-l", N_TRADES, "-q", "-o", path)
    return path


@pytest.fixture(scope="module")
def expected(trades) -> str:
    """Their digest, by the plain reference."""
    found = digests("trades", [(row["symbol"], values(row)) for row in rows_of(trades)])
    return f"{found['']} {N_TRADES}"


class Stack(NamedTuple):
    """Services that were sent all trades by TCP, and what `/stream` sent meanwhile."""

    addresses: dict[str, str]
    store: Path
    streamed: TradeDigest


@pytest.fixture(scope="module")
def stack(trades, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    with serve("all", "-J", "--data-dir", folder, *FREE_PORTS) as services:
        addresses = services.addresses(4)
        streamed = asyncio.run(sent(trades, addresses))
        (store,) = folder.rglob("*.db")
        yield Stack(addresses, store, streamed)


def rows_of(path: Path) -> list[dict]:
    return [*map(json.loads, output_of("replay-dbn", path, "-q", "-J", "-s").splitlines())]


def values(row: dict) -> tuple[int, int, int]:
    return int(row["price"]), row["size"], int(row["hd"]["ts_event"])


def digest(*arguments: object, stdin: bytes = b"") -> str:
    """What the command prints of all rows together."""
    found, rows, name = output_of("digest", *arguments, "-q", stdin=stdin).decode().split()
    assert name == "all"
    return f"{found} {rows}"


def totals(of: TradeDigest) -> str:
    return f"{of.total().digest} {of.total().rows}"


async def sent(trades: Path, addresses: dict[str, str]) -> TradeDigest:
    """Send trades to a stack; return the digest of what its gateway's `/stream` sends."""
    send = ("send", trades, addresses["serve-tcp"], "--rate", 2_000, "--stream-id", "s")
    streamed, heard = TradeDigest(), set()
    async with following(addresses["gateway"]) as rows:
        # A subscription begins with the latest trades: once some have come, it has begun.
        for count in (N_FIRST, N_TRADES):
            await asyncio.to_thread(output_of, *send, "--limit", count, "-q")
            async with asyncio.timeout(WITHIN_S):
                async for symbol, row in rows:
                    heard.add(symbol)
                    streamed.take(trades_of_rows(symbol, [row]))
                    if streamed.total().rows == count:
                        break
            assert heard == set(SYMBOLS)
    return streamed


@contextlib.asynccontextmanager
async def following(address: str):
    """The trades that `/stream` sends, with their symbols, from now on."""
    url = f"http://{address}/stream"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        request = {"op": "subscribe", "id": 1, "channel": "trades", "symbols": SYMBOLS}
        await socket.send_json(request)
        assert (await socket.receive_json())["ok"]

        async def rows():
            async for message in socket:
                said = json.loads(message.data)
                assert "missed" not in said, said
                for row in said["data"] if isinstance(said["data"], list) else [said["data"]]:
                    yield said["symbol"], row

        yield rows()


class Given(NamedTuple):
    """What a way for trades has: the file, a folder of its own, and what fixtures make."""

    trades: Path
    folder: Path
    request: pytest.FixtureRequest

    @property
    def stack(self) -> Stack:
        return self.request.getfixturevalue("stack")


def from_the_file(given: Given) -> str:
    return digest(given.trades)


def from_a_compressed_file(given: Given) -> str:
    path = given.folder / "trades.dbn.zst"
    output_of("replay-dbn", given.trades, "-q", "-o", path)
    return digest(path)


def from_two_files(given: Given) -> str:
    halves = [given.folder / "first.dbn", given.folder / "then.dbn"]
    middle = N_TRADES // 2
    output_of("replay-dbn", given.trades, "-q", "-l", middle, "-o", halves[0])
    end = rows_of(given.trades)[middle]["ts_recv"]
    output_of("replay-dbn", given.trades, "-q", "--start", end, "-o", halves[1])
    return digest(*halves)


def from_json_lines(given: Given) -> str:
    path = given.folder / "ticks.jsonl"
    with path.open("w") as file:
        for row in rows_of(given.trades):
            price, volume, ts = values(row)
            tick = {"symbol": row["symbol"].lower(), "price": price / 1e9, "volume": volume}
            file.write(json.dumps(tick | {"exchange_timestamp": ts}) + "\n")
    return digest(path)


def through_pipes(given: Given) -> str:
    commands = (
        ["replay-dbn", given.trades, "-q"],
        ["replay-dbn", "-", "-q"],
        ["digest", "-", "-q"],
    )
    line = " | ".join(shlex.join([*MDTOOL, *map(str, each)]) for each in commands)
    found, rows, _ = subprocess.run(
        line, shell=True, check=True, capture_output=True
    ).stdout.split()
    return f"{found.decode()} {rows.decode()}"


def from_a_store_behind_tcp(given: Given) -> str:
    return digest(f"sqlite:///{given.stack.store}")


def from_rest(given: Given) -> str:
    return totals(asyncio.run(digest_gateway(given.stack.addresses["gateway"], SYMBOLS)))


def from_the_stream(given: Given) -> str:
    return totals(given.stack.streamed)


def through_kafka(given: Given) -> str:
    bus = url_of(given.request.getfixturevalue("kafka"))
    store = f"sqlite:///{given.folder}/trades.db"
    with (
        service("serve-tcp", "--port", 0, "--bus", bus) as ingest,
        service("store", "--bus", bus, "--store", store),
    ):
        output_of("send", given.trades, ingest.address, "-q")
        wait_until(lambda: stored(store) == N_TRADES)
        return digest(store)


def stored(url: str) -> int:
    with open_history(url) as history:
        return sum(each.trade_count for each in history.symbols())


def from_the_live_gateway(given: Given) -> str:
    return digest("-", stdin=asyncio.run(live_stream(given.trades, "trades")))


async def live_stream(path: Path, schema: str) -> bytes:
    """What a live gateway sends of a schema of a file."""
    async with gateway(path) as address, client(address) as connected:
        await connected.login(dataset=DATASET)
        connected.send(wants("ALL_SYMBOLS", schema=schema), Start())
        await connected.rest()
        return bytes(connected.data)


def through_the_official_client(given: Given) -> str:
    pytest.importorskip("databento", reason="the official client is not installed")
    given.request.getfixturevalue("monkeypatch").setenv("DATABENTO_API_KEY", KEY)
    path = given.folder / "live.dbn"

    async def session() -> None:
        async with gateway(given.trades) as address, asyncio.timeout(WITHIN_S):
            options = ("--gateway", address, "--dataset", DATASET, "-q", "-o", path)
            command = ("ingest", "databento", "ALL_SYMBOLS", *options)
            await asyncio.to_thread(output_of, *command, said="databento: subscribed")

    asyncio.run(session())
    return digest(path)


WAYS = (
    *(from_the_file, from_a_compressed_file, from_two_files, from_json_lines, through_pipes),
    *(from_a_store_behind_tcp, from_rest, from_the_stream, through_kafka),
    *(from_the_live_gateway, through_the_official_client),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_trades_have_one_digest(way, trades, expected, tmp_path, request):
    assert way(Given(trades, tmp_path, request)) == expected


def test_a_check_compares_a_running_stack_with_a_file(trades, expected, stack, tmp_path):
    same = check(stack.addresses, "--digest", str(trades))
    assert same.returncode == 0, same.stderr
    assert expected.split()[0] in same.stdout
    other, fewer = tmp_path / "other.dbn", tmp_path / "fewer.dbn"
    output_of("replay-dbn", trades, "-q", "-l", 10, "--symbols", SYMBOLS[0], "-o", other)
    output_of("replay-dbn", trades, "-q", "--symbols", ",".join(SYMBOLS[1:]), "-o", fewer)
    for path, rows in ((other, 10), (fewer, 0)):
        differs = check(stack.addresses, "--digest", str(path))
        assert differs.returncode == 1
        assert f"other trades than expected ({SYMBOLS[0]}: {rows} and " in differs.stderr


def test_book_states(tmp_path):
    orders, depth = tmp_path / "mbo.dbn", tmp_path / "depth.mbp-10.dbn"
    output_of("simulate", "-l", 3_000, "-q", "-o", orders)
    output_of("book", orders, "--emit", "event", "-q", "-o", depth)
    expected = digest(orders, "--of", "books")
    assert digest(depth, "--of", "books") == expected
    assert digest("-", "--of", "books", stdin=orders.read_bytes()) == expected
    for schema in ("mbo", "mbp-10"):
        received = asyncio.run(live_stream(orders, schema))
        assert digest("-", "--of", "books", stdin=received) == expected
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
