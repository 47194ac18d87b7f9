"""The board of quotes: what is published, what is stale, and what is fresh again."""

from __future__ import annotations

import pytest

from mdtool.adapters.quotes.port import TTL_S
from mdtool.services.gateway.feeds import quotes
from mdtool.services.gateway.feeds.quotes import LatestQuote, QuoteBoard
from mdtool.wire.quotes import Quote


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def published():
    return []


@pytest.fixture
def board(clock, published):
    return QuoteBoard(published.extend, clock)


def quote(number: int, symbol: str = "AAPL") -> Quote:
    return Quote(symbol, number, number + 1, None, number)


def fresh(number: int, symbol: str = "AAPL") -> LatestQuote:
    return LatestQuote(*quote(number, symbol), is_stale=False)


def test_an_equal_quote_is_not_published_again(board, published):
    for number in (1, 1, 2, 2, 1):
        board.receive([quote(number)])
    assert published == [fresh(1), fresh(2), fresh(1)]


def test_an_equal_quote_renews_freshness(board, clock, published):
    for _ in range(5):
        board.receive([quote(1)])
        clock.now_s += TTL_S * 0.75
        board.expire()
    assert published == [fresh(1)]
    assert board.stale_count() == 0


def test_a_quote_is_stale_only_after_its_time_and_said_once(board, clock, published):
    board.receive([quote(1), quote(1, "MSFT")])
    clock.now_s += TTL_S
    board.expire()
    assert board.stale_count() == 0
    board.receive([quote(1, "MSFT")])
    clock.now_s += 0.001
    for _ in range(2):
        board.expire()
        assert board.stale_count() == 1
    stale = fresh(1)._replace(is_stale=True)
    assert published == [fresh(1), fresh(1, "MSFT"), stale]
    assert board.find("AAPL") == stale
    assert board.find("MSFT") == fresh(1, "MSFT")


def test_an_equal_quote_makes_a_stale_one_fresh(board, clock, published):
    board.receive([quote(1)])
    clock.now_s += TTL_S + 1
    board.expire()
    board.receive([quote(1)])
    board.expire()
    assert published == [fresh(1), fresh(1)._replace(is_stale=True), fresh(1)]
    assert board.stale_count() == 0


def test_symbols_beyond_the_limit_are_dropped_and_known_ones_are_not(board, monkeypatch, caplog):
    monkeypatch.setattr(quotes, "MAX_SYMBOLS", 2)
    board.receive([quote(1, symbol) for symbol in ("C", "A", "B", "D")])
    board.receive([quote(2, "A"), quote(2, "B")])
    assert board.symbols() == ["A", "C"]
    assert board.find("A") == fresh(2, "A")
    assert caplog.text.count("more than 2 symbols") == 1


def test_trades_are_renewed_in_place_and_books_are_not(board, clock, published):
    trade = Quote("AAPL", None, None, 5, 1_000)
    board.receive([trade, quote(1, "MSFT"), trade._replace(symbol="OLD")])
    clock.now_s += TTL_S + 1
    assert board.renew_trades(["AAPL", "MSFT"]) == ["MSFT"]
    board.expire()
    assert [row.symbol for row in published[3:]] == ["MSFT", "OLD"]
    assert board.renew_trades(["OLD"]) == ["OLD"]  # is stale: it has to be published
    assert board.find("AAPL") == LatestQuote(*trade)
