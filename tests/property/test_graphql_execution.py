"""Whatever a document selects, the response is graphql-core's for the same values in JSON."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

from graphql import GraphQLSyntaxError, build_schema, execute_sync, parse, print_schema, validate
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.adapters.stores.port import SymbolTotals
from mdtool.services.client import Admission
from mdtool.services.gateway.feeds.aggregates import Aggregate
from mdtool.services.gateway.feeds.bars import Bar
from mdtool.services.gateway.feeds.books import Level, OrderBook
from mdtool.services.gateway.feeds.quotes import LatestQuote
from mdtool.services.gateway.feeds.symbols import KnownSymbol
from mdtool.services.gateway.protocols.graphql.documents import MAX_TOKENS
from mdtool.services.gateway.protocols.graphql.documents import Limits as DocumentLimits
from mdtool.services.gateway.protocols.graphql.execution import Operations
from mdtool.services.gateway.protocols.graphql.schema import make_schema
from mdtool.services.limits import Limits
from mdtool.wire.graphql import Request
from tests.reference.plain_feeds import TABLE, Trade, plain_feeds
from tests.support.graphql_documents import VARIABLES, documents

TIME_NS = 1_735_201_234_567 * 10**6
SCHEMA = build_schema(print_schema(make_schema(TABLE)))
"""Without any resolver of the gateway's."""

cents = st.integers(1, 10**11).map(lambda number: number * 10**7)
sessions = st.tuples(cents, cents, cents, cents, st.integers(1, 2**62), st.just(TIME_NS))


def bar(start: int, price: int, volume: int, trades: int) -> Bar:
    return Bar("AAPL", "1m", start * 10**9, price, price, price, price, volume, trades)


bars = st.lists(
    st.builds(bar, st.integers(0, 10**6), cents, st.integers(1, 2**62), st.integers(1, 2**62)),
    min_size=1,
    max_size=4,
)


known_prices = st.none() | cents
quotes = st.builds(
    LatestQuote,
    *(st.just("AAPL"), known_prices, known_prices, known_prices),
    *(st.integers(0, 2**40), st.booleans()),
)


levels = st.lists(
    st.builds(Level, cents, st.integers(1, 2**62), st.integers(1, 2**31 - 1)), max_size=3
).map(tuple)
books = st.builds(
    OrderBook,
    *(st.just("AAPL"), st.just(TIME_NS), levels, levels),
    *(st.integers(0, 2**31 - 1) for _ in range(3)),
    *(st.just(0), st.booleans()),
)


trades = st.lists(
    st.builds(
        Trade,
        *(st.just("AAPL"), st.just("7:1"), st.just(TIME_NS + 123_456)),
        *(cents, st.integers(1, 2**62)),
    ),
    min_size=1,
    max_size=3,
)
totals = st.lists(
    st.builds(
        SymbolTotals, st.sampled_from(["AAPL", 'A"B']), st.integers(1, 2**62), st.just(TIME_NS)
    ),
    max_size=2,
)


class Root:
    """The same values as JSON has them, for graphql-core's default resolvers."""

    def __init__(self, sessions, bars, quote, book, trades, totals) -> None:
        self._sessions = sessions
        self._bars = bars
        self._quote = quote
        self._book = book
        self._trades = trades
        self._totals = totals

    def trades(self, _info, symbol, limit):
        if symbol.strip().upper() != "AAPL":
            return None
        return {
            "trades": [
                {
                    "symbol": trade.symbol,
                    "sequence": trade.sequence,
                    "timestamp": "2024-12-26T08:20:34.567123456Z",
                    "price": format(Decimal(trade.price).scaleb(-9).normalize(), "f"),
                    "volume": str(trade.size),
                }
                for trade in self._trades[:limit]
            ],
            "nextCursor": "more" if len(self._trades) > limit else None,
        }

    def storedSymbols(self, _info):  # noqa: N802 - as the schema has it
        return [
            {
                "symbol": total.symbol,
                "tradeCount": str(total.trade_count),
                "lastTradeAt": "2024-12-26T08:20:34.567000000Z",
            }
            for total in self._totals
        ]

    def book(self, _info, symbol, depth):
        if symbol.strip().upper() != "AAPL":
            return None
        book = self._book
        sides = {
            side: [
                {"price": level.price / 10**9, "size": str(level.size), "orders": level.orders}
                for level in getattr(book, side)[:depth]
            ]
            for side in ("bids", "asks")
        }
        return {
            **sides,
            "symbol": "AAPL",
            "timestamp": str(TIME_NS // 10**6),
            "bidLevels": book.bid_levels,
            "askLevels": book.ask_levels,
            "orders": book.orders,
            "partial": book.is_partial,
        }

    def quote(self, _info, symbol):
        if symbol.strip().upper() != "AAPL":
            return None
        prices = {name: getattr(self._quote, name) for name in ("bid", "ask", "last")}
        return {
            **{name: price and price / 10**9 for name, price in prices.items()},
            "symbol": "AAPL",
            "timestamp": str(self._quote.ts_ms),
            "stale": self._quote.is_stale,
        }

    def marketData(self, _info, symbol):  # noqa: N802 - as the schema has it
        name = symbol.strip().upper()
        if name not in self._sessions:
            return None
        opened, high, low, close, volume, timestamp = self._sessions[name]
        prices = {"open": opened, "high": high, "low": low, "close": close}
        return {
            **{key: price / 10**9 for key, price in prices.items()},
            "symbol": name,
            "volume": str(volume),
            "timestamp": str(timestamp // 10**6),
            "stale": False,
        }

    def symbols(self, _info):
        return sorted(self._sessions)

    def bars(self, _info, symbol, interval, limit, before=None):
        assert interval == "1m"
        if symbol.strip().upper() != "AAPL":
            return None
        return [
            {
                **dict.fromkeys(("open", "high", "low", "close"), row.open / 10**9),
                "symbol": "AAPL",
                "timestamp": str(row.start // 10**6),
                "volume": str(row.volume),
                "count": str(row.trades),
            }
            for row in self._bars[:limit]
        ]


def with_points(value):
    """The same with every number as a float."""
    if isinstance(value, dict):
        return {key: with_points(each) for key, each in value.items()}
    if isinstance(value, list):
        return list(map(with_points, value))
    return float(value) if type(value) is int else value


def is_short(text):
    """Whether a document has no more tokens than the gateway reads."""
    try:
        parse(text, max_tokens=MAX_TOKENS)
    except GraphQLSyntaxError:
        return False
    return True


@settings(max_examples=60)
@given(
    documents().filter(is_short),
    st.fixed_dictionaries({"AAPL": sessions}, optional={"MSFT": sessions}),
    bars,
    quotes,
    books,
    trades,
    totals,
    st.booleans(),
    st.booleans(),
)
def test_the_answer_is_that_of_graphql_core(
    text, sessions, bars, quote, book, trades, totals, yes, no
):
    node = parse(text)
    assert not validate(SCHEMA, node)
    variables = VARIABLES | {"yes": yes, "no": no}
    root = Root(sessions, bars, quote, book, trades, totals)
    expected = execute_sync(SCHEMA, node, root, variable_values=variables)
    assert not expected.errors

    feeds = plain_feeds()
    feeds.plain["aggregates"].rows = [
        Aggregate(symbol, *prices, 1, TIME_NS, False) for symbol, (*prices, _) in sessions.items()
    ]
    feeds.plain["symbols"].rows = [KnownSymbol(symbol, 1, TIME_NS) for symbol in sessions]
    feeds.plain["bars"].rows = bars
    feeds.plain["quotes"].rows = [quote]
    feeds.plain["books"].rows = [book]
    feeds.plain["trades"].rows = trades
    feeds.plain["symbols"].totals = totals

    limits = DocumentLimits(20, 100, 100_000)
    operations = Operations(feeds, limits, may_introspect=True)
    client = Admission(Limits()).client("127.0.0.1")
    prepared = operations.prepare(Request(text, None, variables), client)

    async def query():
        return await operations.query(client, await client.turn(), prepared)

    response = asyncio.run(query())

    # Order counts; that a whole number is written without a point does not.
    answer = json.loads(response.body, parse_int=float)
    assert json.dumps(answer["data"]) == json.dumps(with_points(expected.data))
    assert "errors" not in answer
