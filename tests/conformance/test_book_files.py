"""Books of whole streams, real and simulated, against the plain reference and known figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdtool.adapters.dbn_files import open_source
from mdtool.core.dtypes import F_LAST, MBO
from mdtool.core.units import parse_price
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from mdtool.engine.simulate import Exchange
from tests.reference.book import ReferenceBooks, mbo_of
from tests.reference.book_equality import assert_same, assert_same_near
from tests.support.instruments import bare, batch, index_of

CLX5 = "CLX5_mbo.dbn"
ESM4 = "ESM4_mbo_snapshot.dbn.zst"
SIMULATED = "simulated"
CLEAR_AND_SNAPSHOT = 13_601
"""How many records of ESM4 come before the first live one."""


@pytest.fixture(params=[CLX5, ESM4, SIMULATED])
def stream(request: pytest.FixtureRequest) -> np.ndarray:
    """The MBO records of each stream."""
    if request.param == SIMULATED:
        return Exchange(["AAPL", "MSFT", "TSLA"], seed=11).generate(12_000)
    return records_of(request.getfixturevalue("real_data") / request.param)


@pytest.fixture
def esm4(real_data: Path) -> np.ndarray:
    return records_of(real_data / ESM4)


def records_of(path: Path) -> np.ndarray:
    with open_source(str(path)) as source:
        return np.concatenate([run.records for run in source if run.records.dtype == MBO])


def only_book(records: np.ndarray) -> BookView:
    books = Books()
    books.apply(batch(records))
    [key] = books.instruments().tolist()
    return BookView(books, key)


def test_every_event_leaves_the_reference_s_book(stream):
    books, reference = Books(), ReferenceBooks()
    for at, record in enumerate(mbo_of(stream)):
        books.apply(batch(stream[at : at + 1]))
        reference.strike(record)
        assert_same_near(books, reference, record)
        if at % 1_000 == 0:
            assert_same(books, reference)
    assert_same(books, reference)


@pytest.mark.parametrize("shown", [1, 10])
def test_depth_records_are_the_reference_s(stream, shown):
    made = [record for run in bare(Books().events(batch(stream), shown)) for record in run.tolist()]
    assert made == [*ReferenceBooks().depth_records(mbo_of(stream), shown)]


def test_clx5_ends_as_it_is_known_to(real_data):
    book = only_book(records_of(real_data / CLX5))
    assert (book.total_orders, book.level_count("B"), book.level_count("A")) == (147, 61, 52)
    assert book.best("B") == (parse_price("65.40"), 1, 1)
    assert book.best("A") == (parse_price("64.78"), 3, 1)
    assert book.is_partial
    assert book.anomalies.keys() == {"unknown_cancel", "unknown_modify", "crossed"}


def test_esm4_is_whole_and_never_crossed_where_an_event_ends(esm4):
    book = only_book(esm4)
    assert not book.is_partial
    assert book.anomalies == {}
    tops = np.concatenate([*bare(Books().events(batch(esm4), 1))])
    tops = tops[(tops["flags"] & F_LAST) != 0]
    assert len(tops) > 50
    assert (tops["bid_px_00"] < tops["ask_px_00"]).all()


@pytest.mark.parametrize("cut", [0, 1], ids=["with its clear", "without"])
def test_a_second_day_s_snapshot_does_not_double_the_orders(esm4, cut):
    """Files from before February 2024 lack the clear before a snapshot."""
    once = only_book(esm4)
    twice = only_book(np.concatenate([esm4[cut:], esm4[cut:]]))
    assert twice.orders("B").tolist() == once.orders("B").tolist()
    assert twice.orders("A").tolist() == once.orders("A").tolist()
    assert not twice.is_partial
    assert twice.anomalies == {"time_backwards": 1}


def test_snapshots_of_two_days_without_a_record_between_do_not_add_up(esm4):
    first = esm4[1:CLEAR_AND_SNAPSHOT]
    second = first[::2].copy()
    second["ts_recv"] += np.uint64(86_400 * 10**9)
    book = only_book(np.concatenate([first, second]))
    assert book.total_orders == len(second)
    assert book.anomalies == {}


def test_without_its_snapshot_the_same_day_is_partial(esm4):
    book = only_book(esm4[CLEAR_AND_SNAPSHOT:])
    assert book.is_partial
    assert book.anomalies["unknown_cancel"] > 0


def test_what_the_simulator_writes_has_no_anomalies():
    exchange = Exchange(seed=3)
    books = Books()
    books.apply(batch(exchange.generate(50_000)))
    views = [BookView(books, key) for key in books.instruments().tolist()]
    assert len(views) == len(exchange.symbols)
    for view in views:
        assert view.anomalies == {}
        assert not view.is_partial


def test_streams_that_are_merged_keep_their_books_apart(real_data, esm4):
    clx5 = records_of(real_data / CLX5)
    elsewhere = clx5.copy()
    elsewhere["publisher_id"] = 2
    merged = np.concatenate([clx5, elsewhere, esm4])
    order = np.argsort(np.concatenate([np.arange(len(run)) for run in (clx5, elsewhere, esm4)]))
    books = Books()
    books.apply(batch(merged[order]))
    for records, key in [
        (clx5, index_of(1, 432669)),
        (elsewhere, index_of(2, 432669)),
        (esm4, index_of(1, 5602)),
    ]:
        alone, together = only_book(records), BookView(books, key)
        for side in "BA":
            assert together.orders(side).tolist() == alone.orders(side).tolist()
        assert together.anomalies == alone.anomalies
