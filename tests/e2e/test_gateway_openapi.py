"""The OpenAPI document: all in it holds, says schemathesis, and nothing is left out of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sysconfig
from pathlib import Path

import pytest

from mdtool.adapters.stores import open_store
from mdtool.services.aggregator.config import INTERVALS
from mdtool.services.gateway import server
from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.parameters import (
    ParameterError,
    parse_before,
    parse_limit,
    parse_order,
    parse_symbol,
)
from mdtool.services.gateway.protocols.rest import MAX_ROWS
from mdtool.services.gateway.table import TABLE
from mdtool.wire.cursors import Cursor, decode_cursor, encode_cursor
from tests.reference.market_source import MarketSource
from tests.support.aggregators import aggregator, message, tick
from tests.support.book_services import receiver_of, sender_of
from tests.support.browser import chromium
from tests.support.gateways import connected, gateway_of
from tests.support.requirements import node_modules
from tests.support.stores import NOON_NS, run, step
from tests.support.vwap_feeds import vwap_feed
from tests.support.waiting import bounded

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
SAMPLE = Path(__file__).parents[2] / "sample_data" / "mbo.dbn.zst"
START = "/api/start-streaming"
NO_REST = (
    *("/docs", "/static/", "/demo/", "/graphiql", "/assets/"),  # pages
    *("/ws", "/graphql", "/stream"),  # protocols that tell of themselves in their own way
)


UNKNOWABLE_CURSORS = """
[[operations]]
include-path-regex = "^/api/(v1/trades|v2)/"

[operations.checks.positive_data_acceptance]
# No pattern tells cursors that were handed out from others: those are rightly refused.
expected-statuses = ["2xx", 400, 404]
"""


@contextlib.asynccontextmanager
async def everything(folder, **settings):
    """A client of a gateway with all the services behind it, and data in them."""
    url = f"sqlite:///{folder}/trades.db?synchronous=normal"
    with open_store(url) as store:
        store.write(step(["AAPL"], run("its", 0, [(0, n + 1, 1, NOON_NS) for n in range(300)])))
    async with (
        aggregator() as market,
        sender_of(SAMPLE) as sender,
        receiver_of(sender.data) as receiver,
        vwap_feed(market.address) as vwap,
        gateway_of(
            market.address,
            sender=sender.address,
            receiver=receiver.address,
            vwap=vwap,
            store=url,
            **settings,
        ) as client,
    ):
        await market.send(message(0, [tick(18_725), tick(18_850, at_s=90)], ["AAPL"]))
        await connected(client)
        async with bounded():
            while (await client.answer("/api/v2/vwap/AAPL"))[0] != 200:
                pass
        async with client.post(START) as response:
            assert response.status == 200
        await receiver.until(state="done")
        yield client


async def schemathesis(client, folder, *options):
    """Run it against a gateway, and return its verdict."""
    process = await asyncio.create_subprocess_exec(
        *(SCHEMATHESIS, "--no-color", "run"),
        f"http://{client.host}:{client.port}/openapi.json",
        *("--checks", "all", "--max-examples", "25", "--seed", "1", "--request-timeout", "60"),
        *("--suppress-health-check", "too_slow"),
        *options,
        cwd=folder,  # where it leaves what it has seen
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize("option", ["--include-path", "--exclude-path"])
async def test_schemathesis_finds_nothing(option, tmp_path):
    # What it starts at any speed may never end; the books are those of a run that has.
    (tmp_path / "schemathesis.toml").write_text(UNKNOWABLE_CURSORS)
    async with everything(tmp_path, upstream_requests_per_s=0, memory_requests_per_s=0) as client:
        status, output = await schemathesis(client, tmp_path, option, START)
    assert status == 0, output


async def test_every_path_is_documented_or_is_no_rest(monkeypatch):
    made = []
    monkeypatch.setattr(server, "Routes", lambda *parts: made.append(Routes(*parts)) or made[0])
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        _, document = await client.answer("/openapi.json")
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in made[0].app.router.routes()
        if route.method not in {"HEAD", "*"}
    }
    documented = {
        (method, path) for path, methods in document["paths"].items() for method in methods
    }
    assert documented <= served
    others = {path for _, path in served - documented} - {"/", "/book", "/openapi.json"}
    assert not [path for path in others if not path.startswith(NO_REST)]


async def test_the_document_says_what_the_parsers_check():
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        _, document = await client.answer("/openapi.json")
    assert document["openapi"] == "3.1.0"
    parameters = document["paths"]["/api/v1/bars/{symbol}"]["get"]["parameters"]
    symbol, interval, limit, before = [parameter["schema"] for parameter in parameters]
    assert re.match(symbol["pattern"], parse_symbol("BRK.B /x"))
    assert len(parse_symbol("A" * symbol["maxLength"])) == symbol["maxLength"]
    assert interval["enum"] == list(INTERVALS)
    for bound in (limit["minimum"], limit["maximum"], limit["default"]):
        assert parse_limit(str(bound)) == bound
    assert parse_before(str(before["maximum"])) == before["maximum"] * 10**6
    for beyond in (limit["minimum"] - 1, limit["maximum"] + 1):
        with pytest.raises(ParameterError):
            parse_limit(str(beyond))
    with pytest.raises(ParameterError):
        parse_before(str(before["maximum"] + 1))

    parameters = document["paths"]["/api/v1/trades/{symbol}"]["get"]["parameters"]
    assert [parameter["schema"] for parameter in parameters[:2]] == [symbol, limit]
    time, cursor = parameters[2]["schema"]["oneOf"]
    assert time == before
    for name in ("A", "A" * symbol["maxLength"]):
        text = encode_cursor(Cursor(name, NOON_NS, 1, 2**63 - 1))
        assert re.fullmatch(cursor["pattern"], text)
        assert decode_cursor(text) == (name, NOON_NS, 1, 2**63 - 1)


async def test_version_2_is_documented_from_the_table():
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        _, document = await client.answer("/openapi.json")
    for row in TABLE.values():
        of_all = document["paths"][f"/api/v2/{row.name}"]["get"]
        data = of_all["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
        name = data["data"]["items"]["$ref"].rpartition("/")[2]
        schema = document["components"]["schemas"][name]
        assert list(schema["properties"]) == [field.name for field in row.fields]
        names = [parameter["name"] for parameter in of_all["parameters"]]
        assert ([row.option.name] if row.option else []) == names[: bool(row.option)]
        assert (f"/api/v2/{row.name}/{{symbol}}" in document["paths"]) is not row.is_whole
    limit, order = (
        next(each["schema"] for each in of_all["parameters"] if each["name"] == name)
        for name in ("limit", "order")
    )
    assert parse_limit(str(limit["maximum"]), MAX_ROWS) == limit["maximum"] == MAX_ROWS
    assert [parse_order(each, "desc") for each in order["enum"]] == [True, False]


async def test_with_a_folder_of_assets_the_docs_load_nothing_from_another_site():
    settings = {"assets": str(node_modules())}
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address, **settings) as client,
    ):
        async with client.get("/docs") as response:
            assert response.content_type == "text/html"
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
            page = await response.text()
        base, *links = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert (base, len(links)) == ("/", 4)
        for link in links:
            async with client.get(base + link) as response:
                assert response.status == 200
                assert len(await response.read()) > 100
        status, answer = await client.answer("/assets/swagger-ui-dist/package.json")
        assert (status, answer["error"]) == (404, "not_found")


async def test_a_browser_shows_every_operation_and_asks_one():
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address, assets=str(node_modules())) as client,
        chromium() as tab,
    ):
        _, document = await client.answer("/openapi.json")
        n_operations = sum(map(len, document["paths"].values()))
        await tab.open(f"http://{client.host}:{client.port}/docs")
        await tab.until(f"document.querySelectorAll('.opblock').length === {n_operations}")
        await tab.run("document.querySelector('.opblock[id$=health] button').click()")
        await tab.until("document.querySelector('.try-out__btn')")
        await tab.run("document.querySelector('.try-out__btn').click()")
        await tab.until("document.querySelector('.execute')")
        await tab.run("document.querySelector('.execute').click()")
        table = "document.querySelector('.live-responses-table')"
        await tab.until(f"{table}?.innerText.includes('{source.address}')")
        assert tab.complaints == []
