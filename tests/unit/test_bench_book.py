"""The book bench measures what it says, beside a baseline that makes the same books."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdtool.bench import book, plain_book
from mdtool.core.batch import Batch
from mdtool.core.errors import CheckError
from mdtool.engine.simulate import Exchange
from tests.reference.book import ReferenceBooks, mbo_of


def test_it_measures_a_simulated_market_where_there_is_no_real_file(monkeypatch):
    monkeypatch.delenv("MDTOOL_TEST_DATA", raising=False)
    events, depth, *of_commands = book.measure(events=3_000, rounds=1)
    assert (events.name, depth.name) == ("book_events", "book_mbp10")
    assert events.ratio == pytest.approx(events.value / events.baseline_value)
    assert depth.value > 0
    assert [figure.name for figure in of_commands] == [
        "book_first_result",
        "book_final",
        "book_event_dbn",
        "book_event_json",
        "book_event_csv",
    ]
    final = of_commands[1]
    assert final.ratio == pytest.approx(final.baseline_value / final.value)


def test_it_repeats_the_real_session_with_fresh_ids(real_data: Path, monkeypatch):
    monkeypatch.setenv("MDTOOL_TEST_DATA", str(real_data))
    stream = book.order_stream(90_000)
    session = 38_212
    assert len(stream) == 90_000
    first, again = stream.records[:session], stream.records[session : 2 * session]
    assert not np.isin(again["order_id"], first["order_id"]).any()
    assert again["price"].tolist() == first["price"].tolist()
    [figure, _] = book._in_memory(stream)
    assert figure.unit == "events/s"


def test_it_fails_where_the_baseline_makes_other_books(monkeypatch):
    monkeypatch.setattr(plain_book.PlainBook, "cancel", lambda self, size, order_id: None)
    with pytest.raises(CheckError, match="differ about"):
        book._in_memory(Batch.of(Exchange(seed=2).generate(3_000)))


def test_the_baseline_keeps_queues_as_the_reference_does():
    records = Exchange(seed=5).generate(4_000)
    books: dict[plain_book.Key, plain_book.PlainBook] = {}
    plain_book.apply(books, records)
    reference = ReferenceBooks()
    reference.apply(mbo_of(records))
    for key, expected in reference.books.items():
        for side, levels in expected.levels.items():
            queues = {price: [*level.queue] for price, level in levels.items()}
            made = books[key].levels[side]
            assert {price: [*level.queue] for price, level in made.items()} == queues
