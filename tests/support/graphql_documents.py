"""Documents of the gateway's schema, with every way of saying the same thing."""

from __future__ import annotations

from hypothesis import strategies as st

VARIABLES = {
    "yes": True,
    "no": False,
    "apple": "AAPL",
    "none": "NONE",
    "two": 2,
}
DECLARED = "$yes: Boolean!, $no: Boolean! = true, $apple: String!, $none: String!, $two: Int!"
OPERATION = f"query Q({DECLARED})"

LEVELS = ("{ price }", "{ size orders }", "{ ...LevelFields }", "{ __typename its_price: price }")
TRADES = (
    "{ price }",
    "{ symbol sequence timestamp volume }",
    "{ ...TradeFields }",
    "{ __typename its: price }",
)
WITHIN = {"bids": LEVELS, "asks": LEVELS, "trades": TRADES}
"""Selections of the rows within a row."""
FIELDS = {
    "Symbol": ("symbol", "tradeCount", "lastTradeAt", "__typename"),
    "Aggregate": (
        *("symbol", "open", "high", "low", "close", "volume", "timestamp", "stale", "__typename"),
    ),
    "Quote": ("symbol", "bid", "ask", "last", "timestamp", "stale", "__typename"),
    "Book": (
        *("symbol", "timestamp", "bidLevels", "askLevels", "orders", "partial", "__typename"),
        *("bids", "asks", "bids", "asks"),
    ),
    "TradesPage": ("nextCursor", "trades", "trades", "trades", "__typename"),
    "Bar": (
        *("symbol", "timestamp", "open", "high", "low", "close", "volume", "count", "__typename"),
    ),
}

KINDS = {
    "marketData": ("Aggregate", ""),
    "quote": ("Quote", ""),
    "bars": ("Bar", "limit"),
    "book": ("Book", "depth"),
    "trades": ("TradesPage", "limit"),
}
"""The type of each field's rows, and the argument that says how many."""

directives = st.sampled_from(
    ["", "", ""]
    + [f"@{name}(if: {value})" for name in ("skip", "include") for value in ("true", "$yes", "$no")]
    + ["@skip(if: $no) @include(if: $yes)"]
)
symbols = st.sampled_from(['"AAPL"', '" aapl"', '"MSFT"', '"NONE"', "$apple", "$none"])


@st.composite
def leaves(draw: st.DrawFn, of: str) -> str:
    name = draw(st.sampled_from(FIELDS[of]))
    alias = draw(st.sampled_from(["", "", f"its_{name.strip('_')}: "]))
    within = draw(st.sampled_from(WITHIN[name])) if name in WITHIN else ""
    return f"{alias}{name} {draw(directives)} {within}"


def selections(of: str) -> st.SearchStrategy[str]:
    """Selections of a row: fields, and fragments of fields."""
    groups = st.recursive(
        leaves(of),
        lambda inner: st.builds(
            lambda condition, directive, chosen: (
                f"... {condition} {directive} {{ {' '.join(chosen)} }}"
            ),
            st.sampled_from(["", f"on {of}"]),
            directives,
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=4,
    )
    return st.lists(groups, min_size=1, max_size=3).map(" ".join)


def with_spreads(of: str) -> st.SearchStrategy[str]:
    """Selections of a row, with a named fragment or without."""
    return st.tuples(st.sampled_from(["", f"...{of}Fields "]), selections(of)).map("".join)


@st.composite
def root_fields(draw: st.DrawFn) -> str:
    directive = draw(directives)
    kind = draw(st.sampled_from([*KINDS, "symbols", "storedSymbols", "__typename"]))
    if kind == "storedSymbols":
        return f"{kind} {directive} {{ {draw(selections('Symbol'))} }}"
    if kind in {"symbols", "__typename"}:
        return f"{kind} {directive}"
    symbol = draw(symbols)
    # Two fields with the same key must be the same, so the key tells the arguments.
    key = f"{kind}_{symbol.strip('$').strip(chr(34)).strip()}_{int(symbol[0] == '$')}"
    of, rows = KINDS[kind]
    argument = draw(st.sampled_from(["", f"{rows}: 1", f"{rows}: $two"])) if rows else ""
    key += argument.replace(": ", "_").replace("$", "")
    return f"{key}: {kind}(symbol: {symbol} {argument}) {directive} {{ {draw(with_spreads(of))} }}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A document that uses every variable and fragment that it declares."""
    chosen = " ".join(draw(st.lists(root_fields(), min_size=1, max_size=4)))
    fragments = {of: draw(selections(of)) for of in FIELDS}
    used = "@include(if: $yes) @skip(if: $no)"
    rest = f"""
        used: marketData(symbol: $apple) {used} {{ ...AggregateFields }}
        unknown: marketData(symbol: $none) {{ open }}
        bars: bars(symbol: "AAPL", limit: $two) {{ ...BarFields }}
        quote: quote(symbol: $apple) {{ ...QuoteFields }}
        book: book(symbol: $apple) {{ ...BookFields bids {{ ...LevelFields }} }}
        trades: trades(symbol: $apple) {{ ...TradesPageFields trades {{ ...TradeFields }} }}
        stored: storedSymbols {{ ...SymbolFields }}
    """
    fragments["Level"] = "price size orders"
    fragments["Trade"] = "timestamp price volume"
    texts = [f"fragment {of}Fields on {of} {{ {text} }}" for of, text in fragments.items()]
    operation = f"{OPERATION} {{ {chosen} ... on Query {{ ...Rest }} }}"
    return " ".join([operation, f"fragment Rest on Query {{ {rest} }}", *texts])
