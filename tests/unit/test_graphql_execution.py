"""Requests run: what fails is null and told, what is too much is refused, prices stay exact."""

from __future__ import annotations

import json
import logging

import pytest
from graphql import build_client_schema, get_introspection_query, print_schema

from mdtool.adapters.aggregator import UnansweredError
from mdtool.services.gateway.encoding import Bar
from mdtool.services.gateway.graphql.errors import DocumentError
from mdtool.services.gateway.graphql.execution import Executor
from mdtool.services.gateway.graphql.limits import Limits
from mdtool.services.gateway.graphql.resolvers import resolvers
from mdtool.services.gateway.graphql.schema import load_schema
from mdtool.wire.graphql import Request
from tests.reference.gateway_market import PlainBooks, PlainTrades, PlainView, plain_quotes

TIME_NS = 1_735_201_234_567 * 10**6
AAPL = (187_250_000_000, 188_500_000_000, 186_100_000_000, 187_330_000_000, 1_000, TIME_NS)
BARS = [Bar("AAPL", (9 - n) * 60 * 10**9, *[10**9] * 4, 7, 2) for n in range(5)]


@pytest.fixture
def view():
    return PlainView({"AAPL": AAPL}, {"AAPL": BARS})


def executor_of(view, *, complexity: int = 20_000, **settings) -> Executor:
    limits = Limits(20, 30, complexity)
    return Executor(
        resolvers(view, plain_quotes(), PlainBooks(), PlainTrades()),
        {"marketData", "bars", "quote", "book"},
        limits,
        may_introspect=True,
        **settings,
    )


async def run(view, query: str, variables: dict | None = None, **settings):
    executor = executor_of(view, **settings)
    response = await executor.query(executor.prepare(Request(query, None, variables or {})))
    return json.loads(response.body)


async def data(view, query: str, variables: dict | None = None) -> dict:
    answer = await run(view, query, variables)
    assert "errors" not in answer
    return answer["data"]


async def test_an_aggregate_has_volume_and_time_as_strings(view):
    query = """{ marketData(symbol: "AAPL") {
        symbol open high low close volume timestamp stale
    } }"""
    assert await data(view, query) == {
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


async def test_prices_keep_all_their_decimals():
    view = PlainView({"ODD": (9_007_199_254_740_993_123, 1, 1, 1, 1, TIME_NS)})
    executor = executor_of(view)
    request = Request('{ marketData(symbol: "ODD") { open high } }')
    response = await executor.query(executor.prepare(request))
    assert response.body == (
        b'{"data":{"marketData":{"open":9007199254.740993123,"high":0.000000001}}}'
    )


async def test_bars_come_newest_first_and_page_backwards(view):
    query = """query Page($before: String) {
        bars(symbol: "aapl", limit: 2, before: $before) { timestamp volume count }
    }"""
    first = await data(view, query)
    assert first["bars"] == [
        {"timestamp": str(minute * 60_000), "volume": "7", "count": "2"} for minute in (9, 8)
    ]
    older = await data(view, query, {"before": first["bars"][-1]["timestamp"]})
    assert [bar["timestamp"] for bar in older["bars"]] == ["420000", "360000"]


async def test_what_has_not_traded_is_null_and_no_error(view):
    query = '{ marketData(symbol: "NONE") { open } bars(symbol: "NONE") { open } }'
    assert await data(view, query) == {"marketData": None, "bars": None}


async def test_what_fails_is_null_and_takes_nothing_else_with_it(view):
    query = """{
        good: marketData(symbol: "AAPL") { close }
        bad: marketData(symbol: "\u20ac") { close }
        worse: bars(symbol: "AAPL", limit: 0) { close }
    }"""
    answer = await run(view, query)
    assert answer["data"] == {"good": {"close": 187.33}, "bad": None, "worse": None}
    assert sorted(answer["errors"], key=lambda error: error["path"]) == [
        {
            "message": "symbol: wants 1 to 70 printable ASCII characters",
            "locations": [{"line": 3, "column": 9}],
            "path": ["bad"],
            "extensions": {"code": "BAD_USER_INPUT"},
        },
        {
            "message": "limit: wants a whole number from 1 to 1000",
            "locations": [{"line": 4, "column": 9}],
            "path": ["worse"],
            "extensions": {"code": "BAD_USER_INPUT"},
        },
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        'symbol: ""',
        'symbol: "\\u0000"',
        f'symbol: "{"A" * 1_000}"',
        'symbol: "A", limit: -1',
        'symbol: "A", limit: 1001',
        'symbol: "A", limit: 2147483647',
        'symbol: "A", before: "yesterday"',
        'symbol: "A", before: "-1"',
        'symbol: "A", interval: "soon"',
        'symbol: "A", interval: "-1m"',
    ],
)
async def test_bad_arguments_are_the_clients_error(view, arguments):
    answer = await run(view, f"{{ bars({arguments}) {{ open }} }}")
    assert answer["data"] == {"bars": None}
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]


async def test_an_argument_whose_variable_is_null_is_an_error_of_its_field(view):
    query = """query($interval: String) {
        bars(symbol: "AAPL", interval: $interval) { open } symbols
    }"""
    answer = await run(view, query, {"interval": None})
    assert answer["data"] == {"bars": None, "symbols": ["AAPL"]}
    assert answer["errors"][0]["path"] == ["bars"]
    assert len((await data(view, query))["bars"]) == 5


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [({}, "provided"), ({"s": None}, "null"), ({"s": 7}, "7"), ({"s": ["A"]}, "String")],
)
def test_variables_of_the_wrong_type_are_refused(view, variables, complaint):
    query = "query($s: String!) { marketData(symbol: $s) { open } }"
    with pytest.raises(DocumentError, match=complaint) as caught:
        executor_of(view).prepare(Request(query, None, variables))
    assert caught.value.errors[0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_while_the_aggregator_is_away_the_last_state_is_answered_and_marked(view):
    view.state.lose()
    for query, data in (
        ('{ marketData(symbol: "AAPL") { stale } }', {"marketData": {"stale": True}}),
        ('{ bars(symbol: "AAPL", limit: 1) { close } }', {"bars": [{"close": 1}]}),
    ):
        executor = executor_of(view)
        response = await executor.query(executor.prepare(Request(query)))
        assert json.loads(response.body) == {"data": data, "extensions": {"stale": True}}
        assert response.is_stale


async def test_what_cannot_be_known_is_an_error_and_not_null_alone():
    view = PlainView({})
    view.state.lose()
    answer = await run(view, '{ marketData(symbol: "AAPL") { close } symbols }')
    assert answer["data"] == {"marketData": None, "symbols": None}
    codes = [error["extensions"]["code"] for error in answer["errors"]]
    assert codes == ["UNAVAILABLE", "UNAVAILABLE"]


async def test_an_aggregator_that_does_not_answer_is_told(view, monkeypatch):
    async def bars(*_):
        raise UnansweredError("aggregator did not answer in time")

    monkeypatch.setattr(view, "bar_page", bars)
    answer = await run(view, '{ bars(symbol: "AAPL") { open } }')
    assert answer["errors"][0]["extensions"]["code"] == "TIMEOUT"


async def test_what_nobody_foresaw_is_in_the_log_and_not_in_the_answer(view, monkeypatch, caplog):
    async def bars(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(view, "bar_page", bars)
    answer = await run(view, '{ bars(symbol: "AAPL") { open } symbols }')
    assert answer["data"] == {"bars": None, "symbols": ["AAPL"]}
    assert answer["errors"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    assert "secret" not in json.dumps(answer)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "secret" in str(record.exc_info[1])


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
def test_each_field_of_each_row_counts(view, query, cost):
    executor_of(view, complexity=max(cost, 1)).prepare(Request(query))
    if cost:
        with pytest.raises(DocumentError, match=f"up to {cost:,} fields") as caught:
            executor_of(view, complexity=cost - 1).prepare(Request(query))
        assert caught.value.errors[0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"


async def test_the_schema_that_is_told_is_the_one_in_the_file(view):
    query = get_introspection_query(input_value_deprecation=False)
    told = build_client_schema(await data(view, query))
    assert print_schema(told) == print_schema(load_schema())


async def test_the_schema_may_be_asked_for_along_with_data(view):
    query = """query($name: String! = "Bar") {
        __typename
        ...Meta
        marketData(symbol: "AAPL") { __typename close }
        type: __type(name: $name) { name }
    }
    fragment Meta on Query { __schema { queryType { name } } }"""
    answer = await data(view, query, {"name": "Aggregate"})
    assert answer == {
        "__typename": "Query",
        "__schema": {"queryType": {"name": "Query"}},
        "marketData": {"__typename": "Aggregate", "close": 187.33},
        "type": {"name": "Aggregate"},
    }
    assert list(answer) == ["__typename", "__schema", "marketData", "type"]


def test_a_subscription_that_asks_for_nothing_is_refused(view):
    query = 'subscription($x: Boolean!) { marketData(symbol: "A") @skip(if: $x) { open } }'
    with pytest.raises(DocumentError):
        executor_of(view).prepare(Request(query, None, {"x": True}))
