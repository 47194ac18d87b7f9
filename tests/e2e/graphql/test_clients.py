"""GraphQL with clients of others: graphql-ws, graphql-http's audits, gql, and GraphiQL."""

from __future__ import annotations

import contextlib
import json

import pytest
from gql import Client as GqlClient
from gql import gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
from gql.transport.exceptions import TransportQueryError

from tests.support.browser import chromium
from tests.support.gateways import connected, gateway_of
from tests.support.node_clients import node_script
from tests.support.requirements import node_modules
from tests.support.waiting import bounded

FOLLOW = "subscription Follow($s: String!) { marketData(symbol: $s) { close } }"
UNLIMITED = {"memory_requests_per_s": 0}


def address(client, scheme: str = "http") -> str:
    return f"{scheme}://{client.host}:{client.port}/graphql"


async def test_graphql_ws_subscribes_queries_and_gets_errors(source, client):
    async with node_script("graphql_ws.cjs", address(client, "ws")) as script:
        await script.do("subscribe", id="a", query=FOLLOW, variables={"s": "AAPL"})
        assert await script.event() == {
            "id": "a",
            "result": {"data": {"marketData": {"close": 188.5}}},
        }
        source.trade("AAPL", 189.0, 1)
        assert (await script.event())["result"]["data"] == {"marketData": {"close": 189}}
        await script.do("subscribe", id="b", query="{ symbols }")
        assert (await script.event())["result"] == {"data": {"symbols": ["AAPL"]}}
        assert await script.event() == {"id": "b", "complete": True}
        await script.do("subscribe", id="c", query="{ nothing }")
        failed = await script.event()
        assert failed["id"] == "c"
        assert failed["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
        await script.do("complete", id="a")
        assert await script.event() == {"id": "a", "complete": True}


async def test_graphql_ws_resubscribes_when_the_gateway_is_restarted(source, free_port):
    async with contextlib.AsyncExitStack() as stack:
        async with gateway_of(source.address, port=free_port) as client:
            await connected(client)
            script = await stack.enter_async_context(
                node_script("graphql_ws.cjs", address(client, "ws"))
            )
            await script.do("subscribe", id="a", query=FOLLOW, variables={"s": "AAPL"})
            assert (await script.event())["id"] == "a"
        assert await script.event() == {"closed": 1001}
        async with gateway_of(source.address, port=free_port):
            async with bounded():
                while "closed" in (event := await script.event()):
                    pass
            assert event["result"] == {"data": {"marketData": {"close": 188.5}}}


async def test_every_audit_of_graphql_http_is_passed(source):
    async with gateway_of(source.address, **UNLIMITED) as client:
        await connected(client)
        async with node_script("graphql_http.cjs", address(client)) as script:
            results = []
            while "done" not in (event := await script.event()):
                results.append(event)
    assert len(results) > 50
    assert [result for result in results if result["status"] != "ok"] == []


async def test_gql_reads_the_schema_and_queries_by_it(client):
    transport = AIOHTTPTransport(address(client))
    async with GqlClient(transport=transport, fetch_schema_from_transport=True) as session:
        query = gql("query($s: String!) { marketData(symbol: $s) { close volume } symbols }")
        query.variable_values = {"s": "aapl"}
        assert await session.execute(query) == {
            "marketData": {"close": 188.5, "volume": "1000"},
            "symbols": ["AAPL"],
        }
        with pytest.raises(TransportQueryError, match="symbol: "):
            await session.execute(gql('{ marketData(symbol: "") { close } }'))


async def test_gql_subscribes(source, client):
    transport = AIOHTTPWebsocketsTransport(url=address(client, "ws"))
    async with GqlClient(transport=transport) as session:
        subscription = gql(FOLLOW)
        subscription.variable_values = {"s": "AAPL"}
        updates = session.subscribe(subscription)
        assert await anext(updates) == {"marketData": {"close": 188.5}}
        source.trade("AAPL", 189.0, 1)
        assert await anext(updates) == {"marketData": {"close": 189}}
        await updates.aclose()


class TestGraphiQL:
    """The page, in a browser, with the npm package's own files."""

    async def test_it_runs_a_query_and_a_subscription(self, source):
        settings = {"assets": str(node_modules())}
        async with gateway_of(source.address, **settings) as client, chromium() as tab:
            await connected(client)
            await tab.open(f"http://{client.host}:{client.port}/graphiql")

            await self.choose(tab, 1)
            await tab.until(f"{self.RESULT}.includes('188.5')")
            answer = json.loads(await tab.run(self.RESULT))
            assert answer["data"]["marketData"]["volume"] == "1000"

            await self.choose(tab, 2)
            for volume in (1_000, 1_001):
                await tab.until(f"{self.RESULT} === {self.shown(volume)}")
                source.trade("AAPL", 188.5, 1)

            await tab.click("[aria-label='Show Documentation Explorer']")
            await tab.until("document.body.innerText.includes('Subscription')")
            assert tab.complaints == []

    RESULT = "document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"

    async def choose(self, tab, place: int) -> None:
        """Run an operation of those that the page suggests."""
        # The button has a menu once GraphiQL has found out that there are several.
        await tab.click(".graphiql-execute-button[aria-haspopup='menu']")
        await tab.click(f"[role='menuitem']:nth-of-type({place})")

    def shown(self, volume: int) -> str:
        """What the page makes of an update, as JavaScript."""
        data = {"data": {"marketData": {"close": 188.5, "volume": str(volume)}}}
        return json.dumps(json.dumps(data, indent=2))
