"""What the watch makes of states: quotes, their order, columns that fit, pictures of any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.adapters.gateway_stream import GatewayStreamClient
from mdtool.cli.screen import ASCII, UNICODE
from mdtool.cli.watch.book import GatewayBookView, plain_book
from mdtool.cli.watch.drawing import (
    COLUMNS,
    GAP,
    GATEWAY_COLUMNS,
    MIN_COLUMNS,
    Connection,
    Look,
    draw,
    fitting,
    named_columns,
)
from mdtool.cli.watch.printing import plain_line
from mdtool.cli.watch.quotes import Quote, Quotes, decimal_text
from mdtool.cli.watch.selection import ORDERS, Selection
from mdtool.core.errors import UsageError
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.alert_lines import AlertLine, encode_alert
from mdtool.wire.vwap_lines import VwapState, encode_state

UNIT = 10**9


def state(symbol: str = "A", price: int = UNIT, vwap: int = UNIT, volume: int = 1) -> VwapState:
    return VwapState(symbol, price, volume, vwap, 10, 0)


def quotes_of(*states: VwapState) -> Quotes:
    quotes = Quotes()
    for each in states:
        quotes.update(each, 0.0)
    return quotes


@pytest.mark.parametrize(
    ("price", "decimals", "text"),
    [
        (1_234_567_890_000, 2, "1,234.57"),
        (1_234_565_000_000, 2, "1,234.57"),
        (-1_500_000_000, 2, "-1.50"),
        (-1, 2, "0.00"),
        (-1, 9, "-0.000000001"),
        (999_999_999, 2, "1.00"),
        (1_234_500_000_000, 0, "1,235"),
        (UNDEF_PRICE, 2, "-"),
        (-(2**63), 9, "-9,223,372,036.854775808"),
    ],
)
def test_prices_as_decimals(price, decimals, text):
    assert decimal_text(price, decimals) == text


def test_a_sign_is_shown_of_a_change_that_can_be_seen():
    assert decimal_text(5 * UNIT, 2, "+") == "+5.00"
    assert decimal_text(1, 2, "+") == "0.00"


def test_a_quote_remembers_where_it_began_and_which_way_it_went():
    quote = Quote(state(price=4 * UNIT), 4 * UNIT, 0.0)
    assert (quote.direction, quote.change_ratio) == (0, 0.0)
    quote.update(state(price=5 * UNIT), 1.0)
    quote.update(state(price=5 * UNIT), 2.0)
    assert (quote.direction, quote.changed_s, quote.updates) == (1, 1.0, 3)
    assert quote.change_ratio == 0.25
    quote.update(state(price=3 * UNIT + 1_000), 3.0)
    assert (quote.direction, quote.decimals) == (-1, 6)
    quote.update(replace(state(price=3 * UNIT + 1_000), is_stale=True), 9.0)
    assert (quote.updates, quote.updated_s, quote.state.is_stale) == (4, 3.0, True)


@pytest.mark.parametrize("is_live", [True, False])
def test_what_is_not_current_is_faint(is_live):
    quotes = quotes_of(state("LIVE"), replace(state("STALE"), is_stale=True))
    connection = Connection("host:1", is_live=is_live)
    drawn = draw(
        quotes, connection, Selection(), Look(UNICODE, is_ascii=False, now_s=0.0), (80, 10)
    )
    faint = {
        line.plain.split()[0]
        for line in drawn
        if any(span.style == "faint" and span.start == 0 for span in line.spans)
    }
    assert {"STALE"} <= faint
    assert ("LIVE" in faint) is not is_live


def test_a_trend_has_a_point_each_half_second_and_ends_with_the_latest_price():
    quote = Quote(state(price=1), 1, 0.0)
    for number in range(2, 100):
        quote.update(state(price=number), number / 10)
    assert quote.trend[-1] == 99
    assert len(quote.trend) == 20


def test_a_change_of_what_began_at_nothing_or_below_has_a_direction():
    assert Quote(state(price=5), 0, 0.0).change_ratio is None
    assert Quote(state(price=-3 * UNIT), -4 * UNIT, 0.0).change_ratio == 0.25
    assert Quote(state(vwap=UNDEF_PRICE), UNIT, 0.0).over_vwap is None
    assert Quote(state(price=-UNIT, vwap=-2 * UNIT), UNIT, 0.0).over_vwap == 0.5


@pytest.mark.parametrize(
    ("title", "width", "shown"),
    [
        ("price", 22, "10,000,006.428571428 ·"),
        ("price", 16, "10,000,006.429 ·"),
        ("price", 12, "10,000,006 ·"),
        ("price", 11, "###########"),
        ("vwap", 12, "10,000,007.0"),
        ("volume", 13, "1,234,567,890"),
        ("volume", 9, "#########"),
    ],
)
def test_a_number_loses_decimals_for_want_of_room_but_no_digit_before_them(title, width, shown):
    [column] = [column for column, _ in COLUMNS if column.title == title]
    told = state(price=10_000_006_428_571_428, vwap=10_000_006_999_999_999, volume=1_234_567_890)
    cell = column.draw(
        "A", Quote(told, told.price, 0.0), Look(UNICODE, is_ascii=False, now_s=0.0), width
    )
    assert column.cell(cell, width).plain == shown


@pytest.mark.parametrize("columns", range(MIN_COLUMNS, 260, 7))
def test_columns_fit_whatever_the_width_and_use_what_there_is(columns):
    shown = fitting(columns)
    assert sum(width + GAP for _, width in shown) + GAP <= columns
    assert [column.title for column, _ in shown][:2] == ["symbol", "price"]
    if columns > 180:
        assert len(shown) == len(COLUMNS)


def test_names_that_a_terminal_would_obey_are_not_drawn():
    drawn = draw(
        quotes_of(state("\x1b[2JX")), Connection("a", is_live=True), Selection(), LOOK, (80, 24)
    )
    assert "\x1b" not in "".join(line.plain for line in drawn)


LOOK = Look(UNICODE, is_ascii=False, now_s=1.0)
KEYS = [b"s", b"S", b"r", b"/", b"a", b"\x7f", b"\r", b"\x1b", b"j", b"k", b"G", b"g", b"h", b" "]


@settings(max_examples=60)
@given(
    st.integers(1, 220),
    st.integers(1, 60),
    st.integers(0, 90),
    st.lists(st.sampled_from(KEYS), max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_a_picture_has_just_the_size_of_its_terminal(columns, lines, n, keys, is_live, is_ascii):
    quotes = quotes_of(*(state(f"SYM{number}", number * UNIT) for number in range(n)))
    selection = Selection()
    for key in keys:
        selection.press(key)
    connection = Connection("127.0.0.1:8888", is_live, "" if is_live else "refused", 1.5, 2, 7.5)
    look = Look(ASCII if is_ascii else UNICODE, is_ascii, 1.0)
    drawn = draw(quotes, connection, selection, look, (columns, lines))
    assert [line.cell_len for line in drawn] == [columns] * lines
    assert not is_ascii or all(line.plain.isascii() for line in drawn)


def test_every_order_sorts_and_reverses():
    quotes = quotes_of(
        state("A", 3 * UNIT, UNIT, 5), state("B", 2 * UNIT, UNDEF_PRICE, 9), state("C", UNIT)
    )
    quotes.update(state("C", 2 * UNIT, 4 * UNIT), 1.0)
    found = {}
    selection = Selection()
    for order in ORDERS:
        ways = []
        for _ in range(2):
            rows, _ = selection.choose(quotes.by_symbol, 10)
            ways.append("".join(symbol for symbol, _ in rows))
            selection.press(b"r")
        found[order.column] = ways
        selection.press(b"s")
    assert found == {
        "symbol": ["ABC", "CBA"],
        "price": ["ABC", "BCA"],
        "change %": ["CAB", "ABC"],
        "vs vwap": ["ACB", "BCA"],
        "volume": ["BAC", "CAB"],
        "updates": ["CAB", "ABC"],
    }
    assert selection.order is ORDERS[0]


def test_letters_go_into_a_filter_and_not_to_what_they_mean():
    selection = Selection()
    for key in (b"/", b"q", b"s", b"\xc3", b"\xa9", b"\x1b[A"):
        selection.press(key)
    assert (selection.filter, selection.is_over) == ("QS", False)
    selection.press(b"\x15")
    assert selection.filter == ""
    for _ in range(100):
        selection.press(b"x")
    assert len(selection.filter) == 70


def test_a_page_never_leaves_the_table_when_symbols_go_from_sight():
    quotes = quotes_of(*(state(f"S{number:02d}") for number in range(50)))
    selection = Selection()
    selection.choose(quotes.by_symbol, 10)
    selection.press(b"G")
    rows, fits = selection.choose(quotes.by_symbol, 10)
    assert ([rows[0][0], rows[-1][0]], fits) == (["S40", "S49"], 50)
    rows, _ = selection.choose(quotes.by_symbol, 45)
    assert (rows[0][0], len(rows)) == ("S05", 45)


def alert(symbol: str, kind: str = "jump", begin: str = "1", end: str | None = None) -> AlertLine:
    return AlertLine(symbol, kind, "high", begin, end, "105", "100")


def test_the_latest_alert_of_a_symbol_is_shown_whether_it_comes_before_its_price_or_behind():
    quotes = Quotes()
    quotes.alert(alert("A"))
    quotes.update(state("A"), 0.0)
    quotes.update(state("B"), 0.0)
    quotes.alert(alert("B", "burst", "2"))
    quotes.alert(alert("B", "stale", "1", end="3"))  # an older one, which has ended
    look = Look(UNICODE, is_ascii=False, now_s=1.0, columns=GATEWAY_COLUMNS)
    drawn = draw(quotes, Connection("a", is_live=True), Selection(), look, (80, 10))
    shown = [line.plain.split() for line in drawn]
    assert shown[2][:5] == ["symbol▲", "price", "change", "%", "alert"]
    assert any(row[:1] == ["A"] and "jump" in row for row in shown)
    assert any(row[:1] == ["B"] and "burst" in row for row in shown)


def test_columns_are_chosen_and_the_first_ones_go_first():
    chosen = named_columns("symbol, alert ,price,vs vwap")
    assert [column.title for column, _ in fitting(100, chosen)] == [
        "symbol",
        "alert",
        "price",
        "vs vwap",
    ]
    assert [column.title for column, _ in fitting(26, chosen)] == ["symbol", "alert"]
    with pytest.raises(UsageError, match="did you mean 'volume'"):
        named_columns("volumes")


def test_a_book_of_a_gateway_is_drawn_as_the_live_view_does_and_without_its_keys():
    view = GatewayBookView(GatewayStreamClient("http://host:8080", token=""), "AAPL")
    trade = {"timestamp": "2024-12-26T12:00:00Z", "price": "187.25", "size": "3"}
    level = {"price": "187.2", "size": "70", "orders": 2}
    row = {
        "timestamp": "2024-12-26T12:00:01Z",
        "symbol": "AAPL",
        "bids": [level],
        "asks": [],
        "bid_levels": 1,
        "ask_levels": 0,
        "orders": 2,
        "partial": True,
    }
    view.take("trades", trade)
    view.take("books", row)

    def screen() -> str:
        return "\n".join(line.plain for line in view.draw((110, 20), "", is_due=True))

    shown = screen()
    assert "187.20" in shown
    assert "187.25" in shown
    assert "PARTIAL" in shown
    assert "live" in shown
    assert "pause" not in shown
    assert plain_book(row) == "2024-12-26T12:00:01Z AAPL bid 70 x 187.2 ask -"
    assert plain_book(row | {"stale": True}).endswith("ask - stale")
    assert plain_book({"bids": [1]}) == 'not understood: {"bids": [1]}'
    view.take("books", row | {"stale": True})
    assert "its receiver is unavailable" in screen()
    view.take("books", row)
    assert "unavailable" not in screen()
    view.take("books", row | {"bids": [{"price": "x"}]})
    assert "was not understood" in screen()
    view.lost("the gateway has gone")
    assert "the gateway has gone" in screen()
    view.press(b"q")
    assert view.is_over


def test_plain_lines_have_their_time_first_and_nothing_that_a_terminal_obeys():
    ended = alert("A", begin="2024-12-26T12:00:00Z", end="2024-12-26T12:00:05Z")
    line = encode_alert(ended._asdict() | {"symbol": "A\x1b[2J"})
    assert plain_line(line) == (
        b"2024-12-26T12:00:05Z A?[2J alert jump high ended: 105 against 100, "
        b"since 2024-12-26T12:00:00Z"
    )
    text = plain_line(encode_state(VwapState("A", UNIT, 7, UNDEF_PRICE, 0, 0)))
    assert text == b"1970-01-01T00:00:00.000000000Z A 1 size 7 vwap - of 0"
    of_a_lot = VwapState("A", UNIT, 7, UNDEF_PRICE, 0, 0, 10_000, is_stale=True)
    assert plain_line(encode_state(of_a_lot)).endswith(b"A 1 size 0.00007 vwap - of 0 stale")
    assert plain_line(b"{").startswith(b"not understood")
