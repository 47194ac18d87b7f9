"""Requests executed: errors of fields, limits, exact prices, and rows encoded once for many."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from graphql import build_client_schema, get_introspection_query, print_schema

from mdtool.adapters.market import UnansweredError, UnavailableError
from mdtool.adapters.stores.port import SymbolTotals
from mdtool.services.client import Admission
from mdtool.services.gateway.backlog import Update
from mdtool.services.gateway.feeds.aggregates import Aggregate
from mdtool.services.gateway.feeds.bars import Bar
from mdtool.services.gateway.feeds.books import Level
from mdtool.services.gateway.feeds.feed import ALL, Key
from mdtool.services.gateway.feeds.quotes import LatestQuote
from mdtool.services.gateway.feeds.symbols import KnownSymbol
from mdtool.services.gateway.hub import Subscription
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.protocols.graphql.documents import Limits as DocumentLimits
from mdtool.services.gateway.protocols.graphql.errors import DocumentError
from mdtool.services.gateway.protocols.graphql.execution import Operations
from mdtool.services.gateway.protocols.graphql.schema import make_schema
from mdtool.services.limits import Limits
from mdtool.wire.graphql import Request
from tests.reference.plain_feeds import TABLE, Halt, Trade, plain_feeds

TIME_NS = 1_735_201_234_567 * 10**6
AAPL = Aggregate(
    *("AAPL", 187_250_000_000, 188_500_000_000, 186_100_000_000, 187_330_000_000),
    *(1_000, 3, TIME_NS, False),
)
BARS = [Bar("AAPL", "1m", (9 - n) * 60 * 10**9, *[10**9] * 4, 7, 2) for n in range(5)]
CLIENT = Admission(Limits()).client("127.0.0.1")


@pytest.fixture
def feeds():
    feeds = plain_feeds()
    feeds.plain["aggregates"].rows = [AAPL]
    feeds.plain["bars"].rows = list(BARS)
    feeds.plain["symbols"].rows = [KnownSymbol("AAPL", 3, TIME_NS)]
    feeds.plain["symbols"].totals = [SymbolTotals("AAPL", 2**40, TIME_NS)]
    return feeds


def operations_of(feeds, complexity: int = 20_000) -> Operations:
    limits = DocumentLimits(20, 30, complexity)
    return Operations(feeds, limits, may_introspect=True)


async def run(feeds, query: str, variables: dict | None = None):
    operations = operations_of(feeds)
    prepared = operations.prepare(Request(query, None, variables or {}), CLIENT)
    return json.loads((await operations.query(CLIENT, await CLIENT.turn(), prepared)).body)


async def data(feeds, query: str, variables: dict | None = None) -> dict:
    answer = await run(feeds, query, variables)
    assert "errors" not in answer
    return answer["data"]


class TestQueries:
    async def test_an_aggregate_has_volume_and_time_as_strings(self, feeds):
        query = """{ marketData(symbol: " aapl") {
            symbol open high low close volume timestamp stale
        } }"""
        assert await data(feeds, query) == {
            "marketData": {
                "symbol": "AAPL",
                "open": 187.25,
                "high": 188.5,
                "low": 186.1,
                "close": 187.33,
                "volume": "1000",
                "timestamp": "1735201234567",
                "stale": False,
            }
        }

    async def test_prices_keep_all_their_decimals(self, feeds):
        feeds.plain["aggregates"].rows = [AAPL._replace(open=9_007_199_254_740_993_123, high=1)]
        operations = operations_of(feeds)
        prepared = operations.prepare(
            Request('{ marketData(symbol: "AAPL") { open high } }'), CLIENT
        )
        response = await operations.query(CLIENT, await CLIENT.turn(), prepared)
        assert response.body == (
            b'{"data":{"marketData":{"open":9007199254.740993123,"high":0.000000001}}}'
        )

    async def test_bars_are_a_list_that_pages_by_time(self, feeds):
        query = """query Page($before: String) {
            bars(symbol: "aapl", limit: 2, before: $before) { timestamp volume count }
        }"""
        first = await data(feeds, query)
        assert first["bars"] == [
            {"timestamp": str(minute * 60_000), "volume": "7", "count": "2"} for minute in (9, 8)
        ]
        older = await data(feeds, query, {"before": first["bars"][-1]["timestamp"]})
        assert [bar["timestamp"] for bar in older["bars"]] == ["420000", "360000"]

    async def test_trades_are_a_page_with_a_cursor(self, feeds):
        trades = [Trade("AAPL", f"7:{n}", TIME_NS, 187_250_000_000, 2**40) for n in (3, 2, 1)]
        feeds.plain["trades"].rows = trades
        query = """{ trades(symbol: "AAPL", limit: 2, before: "there") {
            trades { symbol sequence timestamp price volume } nextCursor
        } }"""
        page = (await data(feeds, query))["trades"]
        assert page["nextCursor"] == "more"
        assert page["trades"] == [
            {
                "symbol": "AAPL",
                "sequence": f"7:{n}",
                "timestamp": "2024-12-26T08:20:34.567000000Z",
                "price": "187.25",
                "volume": str(2**40),
            }
            for n in (3, 2)
        ]
        ((_, page),) = feeds.plain["trades"].pages
        assert (page.cursor, page.to_ns) == ("there", None)

    async def test_symbols_are_names_and_stored_ones_rows(self, feeds):
        query = "{ symbols storedSymbols { symbol tradeCount lastTradeAt } }"
        assert await data(feeds, query) == {
            "symbols": ["AAPL"],
            "storedSymbols": [
                {
                    "symbol": "AAPL",
                    "tradeCount": str(2**40),
                    "lastTradeAt": "2024-12-26T08:20:34.567000000Z",
                }
            ],
        }

    async def test_an_unknown_symbol_is_null_and_no_error(self, feeds):
        query = '{ marketData(symbol: "NONE") { open } bars(symbol: "NONE") { open } }'
        assert await data(feeds, query) == {"marketData": None, "bars": None}

    async def test_every_symbol_is_for_subscriptions_only(self, feeds):
        answer = await run(feeds, '{ marketData(symbol: "*") { open } }')
        assert answer["data"] == {"marketData": None}
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"

    async def test_a_field_that_fails_is_null_and_no_other_is(self, feeds):
        query = """{
            good: marketData(symbol: "AAPL") { close }
            bad: marketData(symbol: "\u20ac") { close }
            worse: bars(symbol: "AAPL", limit: 0) { close }
        }"""
        answer = await run(feeds, query)
        assert answer["data"] == {"good": {"close": 187.33}, "bad": None, "worse": None}
        assert [
            (error["path"], error["locations"], error["extensions"]["code"])
            for error in answer["errors"]
        ] == [
            (["bad"], [{"line": 3, "column": 13}], "BAD_USER_INPUT"),
            (["worse"], [{"line": 4, "column": 13}], "BAD_USER_INPUT"),
        ]
        assert answer["errors"][0]["message"].startswith("symbol: ")

    @pytest.mark.parametrize(
        "arguments",
        [
            'symbol: ""',
            'symbol: "\\u0000"',
            f'symbol: "{"A" * 1_000}"',
            'symbol: "A", limit: -1',
            'symbol: "A", limit: 1001',
            'symbol: "A", limit: 2147483647',
            'symbol: "A", before: "0"',
            'symbol: "A", interval: "soon"',
            'symbol: "A", interval: "-1m"',
        ],
    )
    async def test_bad_arguments_are_the_clients_error(self, feeds, arguments):
        answer = await run(feeds, f"{{ bars({arguments}) {{ open }} }}")
        assert answer["data"] == {"bars": None}
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]

    async def test_an_argument_whose_variable_is_null_is_an_error_of_its_field(self, feeds):
        query = """query($symbol: String = "AAPL") {
            bars(symbol: $symbol) { open } symbols
        }"""
        answer = await run(feeds, query, {"symbol": None})
        assert answer["data"] == {"bars": None, "symbols": ["AAPL"]}
        assert answer["errors"][0]["path"] == ["bars"]
        assert len((await data(feeds, query))["bars"]) == 5

    @pytest.mark.parametrize("given", [None, {"limit": None, "interval": None, "before": None}])
    async def test_a_null_stands_for_the_default(self, feeds, given):
        query = """query($limit: Int, $interval: String, $before: String) {
            bars(symbol: "AAPL", limit: $limit, interval: $interval, before: $before) { open }
        }"""
        answer = await run(feeds, query, given)
        assert len(answer["data"]["bars"]) == 5

    @pytest.mark.parametrize("name", ["aggregates", "bars"])
    async def test_a_stale_row_or_page_marks_the_response(self, feeds, name):
        feeds.plain["aggregates"].rows = [AAPL._replace(is_stale=name == "aggregates")]
        feeds.plain["bars"].is_stale = name == "bars"
        operations = operations_of(feeds)
        query = '{ marketData(symbol: "AAPL") { stale } bars(symbol: "AAPL", limit: 1) { close } }'
        response = await operations.query(
            CLIENT, await CLIENT.turn(), operations.prepare(Request(query), CLIENT)
        )
        assert response.is_stale
        assert json.loads(response.body) == {
            "data": {"marketData": {"stale": name == "aggregates"}, "bars": [{"close": 1}]},
            "extensions": {"stale": True},
        }

    @pytest.mark.parametrize(
        ("error", "code"), [(UnavailableError, "UNAVAILABLE"), (UnansweredError, "TIMEOUT")]
    )
    async def test_a_feed_without_data_is_an_error_and_not_null_alone(self, feeds, error, code):
        feeds.plain["bars"].error = error("the aggregator")
        answer = await run(feeds, '{ bars(symbol: "AAPL") { open } symbols }')
        assert answer["data"] == {"bars": None, "symbols": ["AAPL"]}
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code]
        assert answer["errors"][0]["message"] == "the aggregator"

    @pytest.mark.parametrize("where", ["feed", "row"])
    async def test_an_unexpected_error_is_in_the_log_and_not_in_the_response(
        self, feeds, where, caplog
    ):
        if where == "feed":
            feeds.plain["bars"].error = ZeroDivisionError("secret")
        else:
            feeds.plain["bars"].rows = [BARS[0]._replace(volume=None, open="secret")]
        answer = await run(feeds, '{ bars(symbol: "AAPL") { open } symbols }')
        assert answer["data"] == {"bars": None, "symbols": ["AAPL"]}
        assert answer["errors"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
        assert "secret" not in json.dumps(answer)
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.exc_info[1] is not None

    @pytest.mark.parametrize(
        ("variables", "complaint"),
        [({}, "provided"), ({"s": None}, "null"), ({"s": 7}, "7"), ({"s": ["A"]}, "String")],
    )
    def test_variables_of_the_wrong_type_are_rejected(self, feeds, variables, complaint):
        query = "query($s: String!) { marketData(symbol: $s) { open } }"
        with pytest.raises(DocumentError, match=complaint) as caught:
            operations_of(feeds).prepare(Request(query, None, variables), CLIENT)
        assert caught.value.errors[0]["extensions"]["code"] == "BAD_USER_INPUT"

    @pytest.mark.parametrize(
        ("query", "cost"),
        [
            ("{ symbols }", 2),
            ('{ marketData(symbol: "A") { open high } }', 3),
            ('{ marketData(symbol: "A") { open ...F } } fragment F on Aggregate { open low }', 3),
            ('{ bars(symbol: "A") { open high } }', 201),
            ('{ bars(symbol: "A", limit: 1000) { open high } }', 2_001),
            ('query($n: Int! = 3) { bars(symbol: "A", limit: $n) { open high } }', 7),
            ('{ bars(symbol: "A", limit: 2147483647) { open } }', 1_001),
            ('{ bars(symbol: "A", limit: -2147483647) { open } }', 2),
            ('{ book(symbol: "A", depth: 7) { symbol bids { price size } } }', 29),
            ("{ __typename }", 0),
            ("{ __schema { queryType { name } } }", 5_000),
            ('subscription { bars(symbol: "A") { open high } }', 3),
        ],
    )
    def test_each_field_of_each_row_counts(self, feeds, query, cost):
        operations_of(feeds, complexity=max(cost, 1)).prepare(Request(query), CLIENT)
        if cost:
            with pytest.raises(DocumentError, match=f"{cost:,} fields") as caught:
                operations_of(feeds, complexity=cost - 1).prepare(Request(query), CLIENT)
            assert caught.value.errors[0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"

    async def test_introspection_has_the_whole_schema(self, feeds):
        query = get_introspection_query(input_value_deprecation=False)
        introspected = build_client_schema(await data(feeds, query))
        assert print_schema(introspected) == print_schema(make_schema(TABLE))

    async def test_the_schema_may_be_requested_along_with_data(self, feeds):
        query = """query($name: String! = "Bar") {
            __typename
            ...Meta
            marketData(symbol: "AAPL") { __typename close }
            type: __type(name: $name) { name }
        }
        fragment Meta on Query { __schema { queryType { name } } }"""
        answer = await data(feeds, query, {"name": "Aggregate"})
        assert answer == {
            "__typename": "Query",
            "__schema": {"queryType": {"name": "Query"}},
            "marketData": {"__typename": "Aggregate", "close": 187.33},
            "type": {"name": "Aggregate"},
        }
        assert list(answer) == ["__typename", "__schema", "marketData", "type"]


class TestFurtherFeeds:
    """`halts`, which only the table of the test has."""

    async def test_its_fields_and_types_are_made_from_the_table(self, feeds):
        schema = print_schema(make_schema(TABLE))
        assert "halts(\n" in schema
        assert "): HaltsPage" in schema
        assert '"""The "level"."""\n  level: String\n' in schema
        assert "  haltId: Int!" in schema
        assert "  causes: [HaltCauses!]!" in schema
        feeds.plain["halts"].rows = [Halt("AAPL", 7, 10**9, [Level(1, 2, 3)])]
        query = """{ halts(symbol: "AAPL", limit: 1) {
            halts { symbol haltId level causes { price size orders } } nextCursor
        } }"""
        assert await data(feeds, query) == {
            "halts": {
                "halts": [
                    {
                        "symbol": "AAPL",
                        "haltId": 7,
                        "level": "1",
                        "causes": [{"price": "0.000000001", "size": "2", "orders": 3}],
                    }
                ],
                "nextCursor": None,
            }
        }

    async def test_it_can_be_followed(self, feeds):
        outlet = Outlet()
        follow(feeds, outlet, 'subscription { a: halts(symbol: "*") { haltId level } }')
        feeds.plain["halts"].publish(Halt("MSFT", 8, None))
        assert await outlet.next() == {"data": {"a": {"haltId": 8, "level": None}}}

    def test_a_fixed_type_with_a_field_that_the_table_lacks_is_an_error(self):
        table = [row for row in TABLE if row.name != "quotes"]
        with pytest.raises(TypeError, match="Quote"):
            make_schema(table)


class Outlet:
    """Keeps payloads, without heads and frames."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    def header(self, _length: int) -> bytes:
        return b""

    def send(self, update: Update) -> None:
        self.sent.put_nowait(update[2])

    def send_all(self, updates: Sequence[Update]) -> None:
        for update in updates:
            self.send(update)

    def forget(self, owner: Any) -> None:
        pass

    async def next(self) -> Any:
        """The next message's response; what was published in a turn is sent at its end."""
        message = await self.sent.get()
        assert message.endswith(b"}}")
        return json.loads(message[:-1])


def follow(feeds, outlet: Outlet, query: str, operations: Operations | None = None, **variables):
    operations = operations or operations_of(feeds)
    prepared = operations.prepare(Request(query, None, variables), CLIENT)
    feed, key, format_ = operations.follow(prepared)
    subscription = Subscription(CLIENT, outlet, format_, b"")
    return feed.follow(key, subscription)


class TestSubscriptions:
    async def test_the_current_state_comes_first_and_then_each_row(self, feeds):
        outlet = Outlet()
        end = follow(feeds, outlet, 'subscription { marketData(symbol: "aapl") { close } }')
        assert await outlet.next() == {"data": {"marketData": {"close": 187.33}}}
        feeds.plain["aggregates"].publish(AAPL._replace(close=188 * 10**9))
        feeds.plain["aggregates"].publish(AAPL._replace(symbol="MSFT"))
        assert await outlet.next() == {"data": {"marketData": {"close": 188}}}
        end()
        assert not feeds.plain["aggregates"]
        assert outlet.sent.empty()

    def test_arguments_select_the_key(self, feeds):
        operations = operations_of(feeds)

        def key_of(query: str, **variables) -> Key:
            prepared = operations.prepare(Request(query, None, variables), CLIENT)
            return operations.follow(prepared)[1]

        assert key_of('subscription { quote(symbol: " aapl ") { bid } }') == Key("AAPL")
        assert key_of('subscription { quote(symbol: " * ") { bid } }') == Key(ALL)
        assert key_of('subscription { bars(symbol: "A") { open } }') == Key("A", "1m")
        query = 'subscription($d: Int!) { book(symbol: "A", depth: $d) { orders } }'
        assert key_of(query, d=7) == Key("A", 7)
        with pytest.raises(ParameterError, match="depth"):
            key_of(query, d=101)

    def test_an_argument_whose_variable_is_null_is_an_error(self, feeds):
        query = 'subscription($s: String = "A") { bars(symbol: $s) { open } }'
        with pytest.raises(DocumentError) as caught:
            follow(feeds, Outlet(), query, s=None)
        (error,) = caught.value.errors
        assert (error["path"], error["extensions"]["code"]) == (["bars"], "BAD_USER_INPUT")

    def test_a_feeds_error_is_one_of_the_field(self, feeds):
        operations = operations_of(feeds)
        request = Request('subscription { b: bars(symbol: "A") { open } }')
        errors = operations.failure(operations.prepare(request, CLIENT), UnavailableError("away"))
        assert errors == [
            {
                "message": "away",
                "locations": [{"line": 1, "column": 16}],
                "path": ["b"],
                "extensions": {"code": "UNAVAILABLE"},
            }
        ]

    async def test_dropped_events_are_null_with_their_number(self, feeds):
        outlet = Outlet()
        follow(feeds, outlet, 'subscription { t: trades(symbol: "AAPL") { price } }')
        feeds.plain["trades"].miss("AAPL", 12)
        extensions = {"symbol": "AAPL", "missed": 12}
        assert await outlet.next() == {"data": {"t": None}, "extensions": extensions}
        feeds.plain["trades"].miss("AAPL", None)
        extensions = {"symbol": "AAPL", "missed": None}
        assert await outlet.next() == {"data": {"t": None}, "extensions": extensions}
        feeds.plain["trades"].publish(Trade("AAPL", "7:1", TIME_NS, 10**9, 1))
        assert await outlet.next() == {"data": {"t": {"price": "1"}}}

    async def test_a_row_is_executed_once_for_equal_selections(self, feeds, monkeypatch):
        operations = operations_of(feeds)
        outlets = [Outlet() for _ in range(5)]
        for outlet, query in zip(
            outlets,
            (
                "subscription { quote(symbol: %s) { bid ask } }",
                """subscription Q { ...All }
                fragment All on Subscription {
                    quote(symbol: %s) { bid ... on Quote { ask bid } }
                }""",
                """subscription($yes: Boolean! = true) {
                    quote(symbol: %s) { bid ask @include(if: $yes) last @skip(if: $yes) }
                }""",
                "subscription { quote(symbol: %s) { ask bid } }",
                "subscription { q: quote(symbol: %s) { bid ask } }",
            ),
            strict=True,
        ):
            follow(feeds, outlet, query % '"AAPL"', operations)
        executed = []
        execute = Operations.execute

        def counted(*arguments):
            executed.append(arguments)
            return execute(*arguments)

        monkeypatch.setattr(Operations, "execute", counted)
        feeds.plain["quotes"].publish(
            LatestQuote("AAPL", 10**9, 2 * 10**9, None, 0, is_stale=False)
        )
        messages = [await outlet.next() for outlet in outlets]
        assert messages[:3] == [{"data": {"quote": {"bid": 1, "ask": 2}}}] * 3
        assert list(messages[3]["data"]["quote"]) == ["ask", "bid"]
        assert messages[4] == {"data": {"q": {"bid": 1, "ask": 2}}}
        assert len(executed) == 3

    def test_a_subscription_without_a_field_is_rejected(self, feeds):
        query = 'subscription($x: Boolean!) { marketData(symbol: "A") @skip(if: $x) { open } }'
        with pytest.raises(DocumentError):
            operations_of(feeds).prepare(Request(query, None, {"x": True}), CLIENT)
