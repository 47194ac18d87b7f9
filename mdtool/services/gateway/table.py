"""The table of feeds: from its rows come REST v2, OpenAPI, `/stream`, STOMP and GraphQL.

A further feed is one file in `feeds/`, one row here, and the fields of its rows. Protocols read
the table; none of them names a feed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mdtool.services.aggregator.config import INTERVALS
from mdtool.services.gateway import formats
from mdtool.services.gateway.feeds import (
    aggregates,
    alerts,
    bars,
    books,
    quotes,
    symbols,
    trades,
    vwap,
)
from mdtool.services.gateway.fields import Field
from mdtool.services.gateway.parameters import DEFAULT_DEPTH, MAX_DEPTH, parse_depth, parse_interval


@dataclass(frozen=True, slots=True)
class Option:
    """What besides the symbol selects from a feed: the interval of bars, the depth of books.

    Attributes
    ----------
    name : str
        Of the query parameter, the `/stream` member and the GraphQL argument.
    about : str
    schema : mapping
        In JSON Schema.
    default : str or int
    parse : callable
        Returns the value of a text; raises ParameterError.
    """

    name: str
    about: str
    schema: Mapping[str, Any]
    default: str | int
    parse: Callable[[str], str | int]

    def value_of(self, given: str | int | None) -> str | int:
        """Return the value of what a client gave: the default where that is null or empty."""
        return self.default if given is None or given == "" else self.parse(str(given))


INTERVAL: Final = Option(
    "interval",
    "How long a bar is.",
    {"type": "string", "enum": [*INTERVALS], "default": "1m"},
    "1m",
    parse_interval,
)
DEPTH: Final = Option(
    "depth",
    "At most so many levels of a side.",
    {"type": "integer", "minimum": 1, "maximum": MAX_DEPTH, "default": DEFAULT_DEPTH},
    DEFAULT_DEPTH,
    parse_depth,
)


@dataclass(frozen=True, slots=True)
class PlainSocket:
    """A WebSocket whose clients only listen, to symbols that its URL names.

    Attributes
    ----------
    path : str
    listener : str
        What metrics call its connections.
    encode : callable
        How it writes a row.
    requires_symbols : bool
        Whether `?symbols=` or `?symbol=` has to name some, with commas; otherwise it may.
    """

    path: str
    listener: str
    encode: Callable[[Any], bytes]
    requires_symbols: bool = False


@dataclass(frozen=True, slots=True)
class FeedRow:
    """A row of the table.

    Attributes
    ----------
    name : str
        Of the feed, its `/stream` channel and its path below `/api/v2/`.
    about : str
        What it is, in a sentence.
    fields : sequence of Field
        Of its rows.
    destination : str
        What its STOMP destinations begin with: the symbol follows, and then the option where there
        is one (see `has_option_in_destination`). One that does not end with a slash stands for
        every symbol.
    graphql_field : str
        Its field of GraphQL's `Query` and `Subscription`.
    graphql_type : str
        The GraphQL type of a row.
    option : Option or None
    has_history : bool
        Whether it is a `HistoryFeed`.
    is_upstream : bool
        Whether requests for it reach another service or a store, and count against that limit.
    has_past : bool
        Whether it is a `SessionFeed`.
    has_events : bool
        Whether every row is an event that no later one replaces, such as a trade.
    stomp_encode : callable or None
        How STOMP writes a row, where an older contract fixes it; otherwise as v2 does.
    socket : PlainSocket or None
        A WebSocket of its own, besides `/stream`.
    """

    name: str
    about: str
    fields: Sequence[Field]
    destination: str
    graphql_field: str
    graphql_type: str
    option: Option | None = None
    has_option_in_destination: bool = False
    has_history: bool = False
    is_upstream: bool = False
    has_past: bool = False
    has_events: bool = False
    stomp_encode: Callable[[Any], bytes] | None = None
    socket: PlainSocket | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is requested without symbols, as the list of symbols is."""
        return not self.destination.endswith("/")

    @property
    def default(self) -> str | int | None:
        """The option's value where a request has none."""
        return None if self.option is None else self.option.default


_ROWS: Final = (
    FeedRow(
        name="aggregates",
        about="The session of a symbol so far, or the one before.",
        fields=aggregates.FIELDS,
        destination="/topic/market-data/",
        graphql_field="marketData",
        graphql_type="Aggregate",
        has_past=True,
        stomp_encode=formats.encode_aggregate,
        socket=PlainSocket(
            "/ws/marketdata",
            "/ws/marketdata",
            formats.encode_aggregate_message,
            requires_symbols=True,
        ),
    ),
    FeedRow(
        name="bars",
        about="Bars of a symbol: its trades in intervals of time.",
        fields=bars.FIELDS,
        destination="/topic/bars/",
        graphql_field="bars",
        graphql_type="Bar",
        option=INTERVAL,
        has_option_in_destination=True,
        has_history=True,
        is_upstream=True,
        stomp_encode=formats.encode_bar,
    ),
    FeedRow(
        name="quotes",
        about="The best prices and the last trade of a symbol.",
        fields=quotes.FIELDS,
        destination="/topic/quotes/",
        graphql_field="quote",
        graphql_type="Quote",
        stomp_encode=formats.encode_latest_quote,
        socket=PlainSocket("/ws", "/ws quotes", formats.encode_latest_quote),
    ),
    FeedRow(
        name="books",
        about="The order book of a symbol, up to five times a second.",
        fields=books.FIELDS,
        destination="/topic/books/",
        graphql_field="book",
        graphql_type="Book",
        option=DEPTH,
        is_upstream=True,
    ),
    FeedRow(
        name="trades",
        about="Every trade of a symbol.",
        fields=trades.FIELDS,
        destination="/topic/trades/",
        graphql_field="trades",
        graphql_type="Trade",
        has_history=True,
        is_upstream=True,
        has_events=True,
    ),
    FeedRow(
        name="vwap",
        about="The rolling VWAP of a symbol's last trades.",
        fields=vwap.FIELDS,
        destination="/topic/vwap/",
        graphql_field="vwap",
        graphql_type="Vwap",
    ),
    FeedRow(
        name="alerts",
        about="What is unusual in the trades and quotes of a symbol; it predicts nothing.",
        fields=alerts.FIELDS,
        destination="/topic/alerts/",
        graphql_field="alerts",
        graphql_type="Alert",
        has_history=True,
    ),
    FeedRow(
        name="symbols",
        about="The symbols that have traded, as they become known.",
        fields=symbols.FIELDS,
        destination="/topic/symbols",
        graphql_field="symbolInfo",
        graphql_type="SymbolInfo",
    ),
)
TABLE: Final[Mapping[str, FeedRow]] = {row.name: row for row in _ROWS}
