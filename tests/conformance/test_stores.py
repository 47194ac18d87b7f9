"""The contract of stores, for every kind of store."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import StoreClaimedError, StoreGapError, StoreUnavailableError
from mdtool.adapters.stores.port import SavedStream, SymbolTotals, TradeKey
from mdtool.core.errors import ConfigError
from tests.support.stores import (
    MS,
    NOON_NS,
    STORES,
    NewUrl,
    claim_when_free,
    run,
    share,
    step,
)

AAPL, MSFT = 0, 1
SYMBOLS = ["AAPL", "MSFT"]


@pytest.fixture(params=STORES)
def new_url(request, tmp_path):
    with STORES[request.param](tmp_path) as new_url:
        yield new_url


@pytest.fixture
def url(new_url: NewUrl) -> str:
    return new_url()


@pytest.fixture
def store(url):
    with open_store(url) as store:
        yield store


@pytest.fixture
def parts(url: str, monkeypatch) -> int:
    """By what many trades are divided, and so that they are more than one page."""
    if share(url) > 1:
        monkeypatch.setattr("mdtool.adapters.stores.mongodb.reader.PAGE_TRADES", 4_000)
        monkeypatch.setattr("mdtool.adapters.stores.mongodb.store._PRUNED", 1_000)
    return share(url)


def trade(price: int, symbol: int = AAPL, volume: int = 1, at_ns: int = NOON_NS):
    return symbol, price, volume, at_ns


def trades(first: int, count: int, symbol: int = AAPL, every_ns: int = MS):
    return [
        trade(n + 1, symbol, n + 2, NOON_NS + n * every_ns) for n in range(first, first + count)
    ]


def prices(page) -> list[int]:
    return page.trades.price.tolist()


def test_a_new_store_is_empty(store):
    assert store.symbols() == []
    assert store.streams() == []
    assert not store.has("AAPL")
    assert len(store.page("AAPL", 10)) == 0
    assert list(store.trades("AAPL")) == []
    assert len(store.bars("AAPL", 60 * 10**9, 10)) == 0
    assert store.position("stream") is None
    assert store.recount() == store.repair() == []
    assert store.sequences().shape == (3, 0)
    state = store.load(10, 0)
    assert (state.symbols, state.positions, state.counts) == ([], {}, {})
    assert len(state.sessions) == len(state.bars) == 0


def test_prices_of_any_sign_are_stored_with_their_sessions_and_bars(store):
    traded = [0, -37_630_000_000, -(2**63), 2**63 - 2]
    values = run("a", 0, [trade(price, at_ns=NOON_NS + n) for n, price in enumerate(traded)])
    below = (*bar(3)[:4], -1, 0, -2, -1, *bar(3)[8:])
    store.write(step(SYMBOLS, values, bars=[below]))
    assert prices(store.page("AAPL", 10)) == traded[::-1]
    assert store.bars("AAPL", SECOND, 1).tolist() == [below]
    assert store.recount() == []


def test_trades_are_read_as_they_were_written(store):
    written = [trade(5, MSFT, 7, NOON_NS + 1), None, trade(2**63 - 1, MSFT, 2**63 - 1, NOON_NS)]
    store.write(step(SYMBOLS, run("stream", 40, written)))
    (stream,) = store.streams()
    page = store.page("MSFT", 10)
    assert page.trades.ts_event.tolist() == [NOON_NS + 1, NOON_NS]
    assert page.stream.tolist() == [stream.number] * 2
    assert page.sequence.tolist() == [40, 42]
    assert prices(page) == [5, 2**63 - 1]
    assert page.trades.size.tolist() == [7, 2**63 - 1]
    assert page.trades.ts_recv.tolist() == [NOON_NS + 6, NOON_NS + 5]
    assert all(
        column.dtype == np.int64
        for column in (page.trades.ts_event, page.trades.price, page.trades.size)
    )
    assert stream == SavedStream(stream.number, "stream", 43)
    assert store.symbols() == [SymbolTotals("MSFT", 2, NOON_NS + 1)]
    assert not store.has("AAPL")
    assert store.has("MSFT")


def test_everything_is_there_after_reopening(url):
    with open_store(url) as store:
        store.write(step(SYMBOLS, run("stream", 0, trades(0, 10)), counts={"ticks": 10}))
    with open_store(url) as store, open_history(url) as history:
        assert store.position("stream") == 10
        assert store.load(1, 0).counts == {"ticks": 10}
        for reader in (store, history):
            assert prices(reader.page("AAPL", 100)) == list(range(10, 0, -1))


def test_resent_frames_are_stored_once(store):
    for first, count in ((0, 10), (0, 10), (3, 4), (5, 10), (0, 15), (15, 0)):
        store.write(step(SYMBOLS, run("stream", first, trades(first, count))))
    assert store.symbols() == [SymbolTotals("AAPL", 15, NOON_NS + 14 * MS)]
    assert prices(store.page("AAPL", 100)) == list(range(15, 0, -1))
    assert store.position("stream") == 15


def test_runs_of_one_stream_follow_each_other_within_a_step(store):
    runs = [run("a", 0, trades(0, 5)), run("b", 7, trades(50, 1)), run("a", 3, trades(3, 5))]
    store.write(step(SYMBOLS, *runs))
    assert store.position("a") == 8
    assert store.position("b") == 8
    assert store.symbols() == [SymbolTotals("AAPL", 9, NOON_NS + 50 * MS)]


def test_refused_frames_move_the_position_alone(store):
    store.write(step(SYMBOLS, run("stream", 0, [], frames=12)))
    assert store.position("stream") == 12
    assert store.symbols() == []
    with pytest.raises(StoreGapError):
        store.write(step(SYMBOLS, run("stream", 13, trades(13, 1))))


def test_after_a_gap_nothing_of_the_step_is_stored(store):
    store.write(step(SYMBOLS, run("a", 0, trades(0, 5))))
    ahead = [run("b", 0, trades(0, 5, MSFT)), run("a", 6, trades(6, 1))]
    with pytest.raises(StoreGapError, match=r"'a' continues at 5, not at 6"):
        store.write(step(SYMBOLS, *ahead, counts={"ticks": 11}))
    assert store.symbols() == [SymbolTotals("AAPL", 5, NOON_NS + 4 * MS)]
    assert store.position("b") is None
    assert [stream.stream_id for stream in store.streams()] == ["a"]
    assert store.load(10, 0).counts == {}
    store.write(step(SYMBOLS, run("a", 5, trades(5, 1))))
    assert store.position("a") == 6


def test_totals_only_move_forward(store):
    store.write(step(SYMBOLS, run("a", 0, [trade(1, at_ns=NOON_NS + 9)])))
    store.write(step(SYMBOLS, run("b", 0, [trade(2, at_ns=NOON_NS), trade(3, at_ns=NOON_NS)])))
    assert store.symbols() == [SymbolTotals("AAPL", 3, NOON_NS + 9)]


def test_parts_of_a_stream_are_known_by_their_keys(store):
    part = step(SYMBOLS, run("a", 5, trades(5, 5), is_part=True))
    store.write(part)
    store.write(part)
    store.write(step(SYMBOLS, run("a", 2, trades(2, 5), is_part=True)))
    assert store.position("a") is None
    assert store.streams() == [SavedStream(store.streams()[0].number, "a", None)]
    assert store.load(10, 0).positions == {}
    assert store.symbols() == [SymbolTotals("AAPL", 8, NOON_NS + 9 * MS)]

    store.write(step(SYMBOLS, run("a", 0, trades(0, 12))))
    assert store.position("a") == 12
    assert store.symbols() == [SymbolTotals("AAPL", 12, NOON_NS + 11 * MS)]
    assert store.recount() == []

    store.write(step(SYMBOLS, run("a", 30, trades(30, 1), is_part=True)))
    assert store.position("a") == 12


def test_pages_end_where_the_trades_do(store):
    store.write(step(SYMBOLS, run("a", 0, [*trades(0, 5), *trades(0, 5, MSFT)])))
    first = store.page("AAPL", 3)
    second = store.page("AAPL", 3, first.key(2))
    third = store.page("AAPL", 3, second.key(1))
    assert [prices(page) for page in (first, second, third)] == [[5, 4, 3], [2, 1], []]
    assert prices(store.page("AAPL", 3, TradeKey(NOON_NS + 2 * MS, 0, 0))) == [2, 1]
    assert prices(store.page("AAPL", 0)) == prices(store.page("AAPL", -1)) == []
    assert prices(store.page_after("AAPL", 3, TradeKey(NOON_NS, 0, 0))) == [1, 2, 3]
    assert prices(store.page_after("AAPL", 3, first.key(2))) == [4, 5]
    assert prices(store.page_after("AAPL", 9, TradeKey(NOON_NS, 0, 0), NOON_NS + 2 * MS)) == [1, 2]


def test_trades_of_one_moment_are_in_order_of_stream_and_sequence(store):
    for stream in ("a", "b"):
        store.write(step(SYMBOLS, run(stream, 0, [trade(n + 1) for n in range(100)])))
    seen, before = [], None
    while len(page := store.page("AAPL", 7, before)):
        seen += [page.key(row) for row in range(len(page))]
        before = seen[-1]
    assert len(seen) == 200
    assert seen == sorted(seen, reverse=True)


def test_all_trades_come_in_order_and_within_bounds(store):
    store.write(step(SYMBOLS, run("a", 0, trades(0, 100)), run("b", 0, trades(50, 100))))
    pages = list(store.trades("AAPL"))
    keys = [page.key(row) for page in pages for row in range(len(page))]
    assert len(keys) == 200
    assert keys == sorted(set(keys))
    within = store.trades("AAPL", NOON_NS + 10 * MS, NOON_NS + 20 * MS)
    assert [price for page in within for price in prices(page)] == list(range(11, 21))
    assert list(store.trades("AAPL", NOON_NS + 150 * MS)) == []


def test_other_methods_may_be_called_between_two_pages_of_all_trades(store, parts):
    count = 120_000 // parts
    store.write(step(SYMBOLS, run("a", 0, trades(0, count, every_ns=1))))
    seen = []
    for page in store.trades("AAPL"):
        store.write(step(SYMBOLS, run("b", len(seen), trades(0, len(page), MSFT, every_ns=1))))
        seen += prices(page)
    assert seen == list(range(1, count + 1))
    assert len(store.page("MSFT", 1)) == 1


SESSION = (10, 30, 5, 20, 100, 4, NOON_NS, NOON_NS + 1)
SECOND, MINUTE = 10**9, 60 * 10**9


def bar(start: int, *, count: int = 1, is_open: bool = False, interval: int = SECOND, symbol=AAPL):
    start_ns = NOON_NS + start * SECOND
    return (symbol, interval, is_open, start_ns, 9, 9, 9, 9, count, count, start_ns, start_ns + 1)


def starts(bars) -> list[int]:
    return ((bars["start_ns"] - NOON_NS) // SECOND).tolist()


def test_a_market_is_restored(store):
    later = (*SESSION[:5], 5, NOON_NS, NOON_NS + 1)
    store.write(step(SYMBOLS, run("a", 0, []), sessions={MSFT: SESSION, AAPL: SESSION}))
    store.write(step(SYMBOLS, run("a", 0, []), sessions={AAPL: later}, counts={"ticks": 5}))
    store.write(step(SYMBOLS, bars=[bar(0, is_open=True), bar(0, is_open=True, interval=MINUTE)]))
    state = store.load(10, 0)
    sessions = dict(zip(state.symbols, state.sessions.tolist(), strict=True))
    assert sessions == {"MSFT": SESSION, "AAPL": later}
    index = list(state.symbols).index("AAPL")
    assert state.bars.tolist() == [
        (index, *bar(0, is_open=True)[1:]),
        (index, *bar(0, is_open=True, interval=MINUTE)[1:]),
    ]
    assert state.counts == {"ticks": 5}


def test_an_older_step_that_is_written_again_changes_nothing(store):
    steps = [
        step(
            SYMBOLS,
            run("a", number, trades(number, 1)),
            sessions={AAPL: (*SESSION[:5], number + 1, NOON_NS, NOON_NS)},
            bars=[bar(number, is_open=True), bar(0, count=number + 1)],
            counts={"ticks": number + 1},
        )
        for number in range(3)
    ]
    for each in (*steps, *steps[:2]):
        store.write(each)
    state = store.load(10, MINUTE)
    assert state.sessions["count"].tolist() == [3]
    assert starts(state.bars) == [0, 2]
    assert state.bars["count"].tolist() == [3, 1]
    assert state.counts == {"ticks": 3}
    assert state.positions == {"a": 3}


def test_closed_bars_are_restored_while_they_may_be_amended(store):
    closed = [bar(start) for start in range(-5, 10)] + [bar(-60, interval=MINUTE)]
    living = [bar(10, is_open=True), bar(0, is_open=True, interval=MINUTE)]
    alone = [bar(1, symbol=MSFT), bar(2, is_open=True, symbol=MSFT)]
    sessions = {AAPL: SESSION, MSFT: SESSION}
    store.write(step(SYMBOLS, sessions=sessions, bars=[*closed, *living, *alone]))

    def taken_up(lateness_s: int) -> dict[str, list[int]]:
        state = store.load(10, lateness_s * SECOND)
        of = [state.symbols[index] for index in state.bars["symbol"].tolist()]
        assert of == sorted(of, key=list(state.symbols).index)
        return {symbol: starts(state.bars[[each == symbol for each in of]]) for symbol in SYMBOLS}

    assert taken_up(0) == {"AAPL": [10, 0], "MSFT": [2]}
    assert taken_up(3) == {"AAPL": [7, 8, 9, 10, 0], "MSFT": [1, 2]}
    assert taken_up(10) == {"AAPL": [*range(11), 0], "MSFT": [1, 2]}
    assert taken_up(11) == {"AAPL": [*range(-1, 11), -60, 0], "MSFT": [1, 2]}


def test_closed_bars_are_read_in_both_orders(store):
    closed = [bar(start) for start in range(10)] + [bar(0, interval=MINUTE), bar(3, symbol=MSFT)]
    runs = run("a", 0, [trade(1), trade(1, MSFT)])
    store.write(step(SYMBOLS, runs, bars=[*closed, bar(10, is_open=True)]))
    assert starts(store.bars("AAPL", SECOND, 3)) == [9, 8, 7]
    assert starts(store.bars("AAPL", SECOND, 3, NOON_NS + 7 * SECOND)) == [6, 5, 4]
    assert starts(store.bars("AAPL", SECOND, 100, NOON_NS)) == []
    assert store.bars("AAPL", SECOND, 1, NOON_NS + SECOND).tolist() == [bar(0)]
    assert store.bars("MSFT", SECOND, 5).tolist() == [(0, *bar(3)[1:])]
    assert len(store.bars("AAPL", 5, 5)) == len(store.bars("IBM", SECOND, 5)) == 0
    assert starts(store.bars_from("AAPL", SECOND, 3, NOON_NS)) == [0, 1, 2]
    assert starts(store.bars_from("AAPL", SECOND, 100, NOON_NS + 7 * SECOND - 1)) == [7, 8, 9]
    assert store.bars_from("AAPL", SECOND, 1, NOON_NS).tolist() == [bar(0)]
    assert len(store.bars_from("AAPL", SECOND, 5, NOON_NS + 10 * SECOND)) == 0
    assert len(store.bars_from("IBM", SECOND, 5, 0)) == 0


def test_positions_are_those_of_the_streams_written_last(store):
    for stream in ("a", "b", "c", "a"):
        position = store.position(stream) or 0
        store.write(step(SYMBOLS, run(stream, position, trades(position, 1))))
    assert list(store.load(10, 0).positions.items()) == [("b", 1), ("c", 1), ("a", 2)]
    assert list(store.load(2, 0).positions.items()) == [("c", 1), ("a", 2)]


def test_a_stream_is_of_the_principal_that_claims_it_first(url):
    with open_store(url) as store, open_store(url) as other:
        store.write(step(SYMBOLS, run("before", 0, trades(0, 2))))
        for stream in ("before", "new"):
            assert store.own(stream, "key:a") == "key:a"
            assert other.own(stream, "key:b") == "key:a"
        assert store.load(10, 0).positions == {"before": 2}
        assert store.position("new") is None
        other.write(step(SYMBOLS, run("new", 7, trades(7, 1))))
        assert store.position("new") == 8
    with open_store(url) as store:
        assert store.own("new", "key:b") == "key:a"


def test_several_writers_find_what_the_others_wrote(url):
    with open_store(url) as first, open_store(url) as second, open_history(url) as history:
        first.write(step(SYMBOLS, run("a", 0, trades(0, 5, MSFT))))
        second.write(step(["IBM", "MSFT"], run("a", 3, [trade(n + 1, 1) for n in range(3, 8)])))
        second.write(step(["IBM"], run("b", 0, trades(0, 1))))
        first.write(step(["AAPL", "MSFT", "IBM"], run("b", 0, trades(0, 3, 2))))
        for reader in (first, second, history):
            assert [(each.symbol, each.trade_count) for each in reader.symbols()] == [
                ("IBM", 3),
                ("MSFT", 8),
            ]
        with pytest.raises(StoreGapError):
            first.write(step(SYMBOLS, run("a", 9, trades(9, 1))))


def test_one_at_a_time_holds_the_market(url):
    with open_store(url) as second:
        with open_store(url) as first:
            first.claim()
            first.claim()
            with pytest.raises(StoreClaimedError):
                second.claim()
            second.write(step(SYMBOLS, run("a", 0, trades(0, 1))))
        claim_when_free(second)


def test_totals_are_those_of_the_trades(store):
    store.write(step(SYMBOLS, run("a", 0, [*trades(0, 10), *trades(0, 3, MSFT)])))
    store.write(step(SYMBOLS, run("a", 5, trades(5, 20, MSFT))))
    assert store.recount() == store.repair() == []


def test_a_reader_of_a_missing_store_is_unavailable(url):
    with open_history(url) as history:
        with pytest.raises(StoreUnavailableError, match=r"\S"):
            history.symbols()
        with open_store(url) as store:
            store.write(step(SYMBOLS, run("a", 0, trades(0, 1))))
            assert history.has("AAPL")


def test_nothing_is_interrupted_where_nothing_is_read(store):
    store.interrupt()
    assert store.symbols() == []


def test_an_unknown_scheme_is_rejected_with_the_known_ones():
    for opener in (open_store, open_history):
        with pytest.raises(ConfigError, match="sqlite, postgresql, mongodb"):
            opener("mysql://localhost")


def test_sequences_of_streams_are_given_as_runs(store):
    part = [trade(1), trade(2, MSFT), None, trade(3), trade(4)]
    store.write(step(SYMBOLS, run("a", 5, part, is_part=True), run("b", 0, [trade(9)])))
    store.write(step(SYMBOLS, run("a", 20, [trade(5)], is_part=True)))
    # Another trade of the same sequence, which only a writer of this stream could leave out.
    store.write(step(SYMBOLS, run("a", 8, [trade(6, MSFT)], is_part=True)))
    a, b = (stream.number for stream in store.streams())
    assert store.sequences().T.tolist() == [[a, 5, 6], [a, 8, 9], [a, 20, 20], [b, 0, 0]]


def test_the_first_lot_of_a_symbol_stays(url):
    session = (1, 1, 1, 1, 1, 1, NOON_NS, NOON_NS)
    with open_store(url) as store:
        store.write(step(SYMBOLS, run("a", 0, [trade(1)]), sessions={AAPL: session}))
        assert store.symbols() == [SymbolTotals("AAPL", 1, NOON_NS, 0)]
        store.write(step(SYMBOLS, run("a", 1, [trade(2)]), lots={AAPL: 10, MSFT: 20}))
    with open_store(url) as store:
        store.write(step(["MSFT", "AAPL"], run("a", 2, [trade(3)]), lots={0: 30, 1: 40}))
        assert store.load(10, 0).lots == {"AAPL": 10, "MSFT": 20}
        assert store.recount() == []
    with open_history(url) as history:
        assert [(each.symbol, each.lot) for each in history.symbols()] == [
            ("AAPL", 10),
            ("MSFT", 20),
        ]


def test_what_is_old_is_pruned_and_totals_agree_with_what_remains(store, parts):
    minute, a_minute = 60 * 10**9, 100 // parts
    rows = [trade(n + 1, at_ns=NOON_NS + n * minute // a_minute) for n in range(500 * a_minute)]
    gone = [trade(7, MSFT, at_ns=NOON_NS + n) for n in range(100)]
    past = [bar(60 * place, interval=minute) for place in range(400)]
    session = (1, 1, 1, 1, 100, 100, NOON_NS + 99, NOON_NS)
    store.write(step(SYMBOLS, run("a", 0, rows), run("b", 0, gone), bars=past))
    store.write(step(SYMBOLS, sessions={MSFT: session}))
    cut_ns = NOON_NS + 300 * minute
    assert store.prune(cut_ns) == 300 * a_minute + 100
    assert store.prune(cut_ns) == 0
    assert store.symbols() == [SymbolTotals("AAPL", 200 * a_minute, rows[-1][3])]
    assert store.recount() == []
    kept = [page.trades.price for page in store.trades("AAPL")]
    assert np.concatenate(kept).tolist() == list(range(300 * a_minute + 1, 500 * a_minute + 1))
    assert store.bars("AAPL", minute, 1_000)["start_ns"].min() == cut_ns
    assert store.load(10, 0).symbols == []
    assert (store.position("a"), store.position("b")) == (len(rows), 100)
    store.write(step(SYMBOLS, run("b", 100, [trade(8, MSFT, at_ns=cut_ns)])))
    assert store.symbols()[1] == SymbolTotals("MSFT", 1, cut_ns)
    assert store.prune(2**62) == 200 * a_minute + 1
    assert store.symbols() == store.recount() == []


def test_rows_and_blocks_are_pruned_alike(store, parts):
    """Whatever the size of the writes, and however they overlap."""
    written, many = [], 5_000 // parts
    for first, count in ((0, 3), (3, 500), (100, 70), (50, 5), (800, many)):
        rows = trades(first, count)
        store.write(step(SYMBOLS, run(f"s{first}", 0, rows)))
        written += [row[3] for row in rows]
    for cut in (0, 1, 120, 500, 800 + many // 2, 799 + many):
        before_ns = NOON_NS + cut * MS
        store.prune(before_ns)
        written = [at_ns for at_ns in written if at_ns >= before_ns]
        found = [page.trades.ts_event for page in store.trades("AAPL")]
        assert np.concatenate(found).tolist() == sorted(written)
        assert store.recount() == []
