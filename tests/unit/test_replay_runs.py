"""What a receiver is sent that joins a run in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import databento_dbn as dbn
import numpy as np

from mdtool.adapters.dbn_files import Recording
from mdtool.core.batch import Resolver
from mdtool.core.dtypes import MBO, SYMBOL_MAPPING
from mdtool.core.instruments import Instruments
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import views
from mdtool.services.replay.runs import Pace, Run
from tests.support.dbn_files import DAY, MAY_1, header, mapping, order, write


async def joined(path: Path, metadata: dbn.Metadata, following: bytes) -> dict[str, list]:
    """The books, by label, of a receiver that joins behind the last record of a recording."""
    run = Run(Recording((str(path),)), Pace(0), 0, 1 << 20)
    playing = asyncio.create_task(run.play())
    await run.reached(1)
    await playing
    resolver, books = Resolver(Instruments(), "receiver", metadata), Books()
    for records in [*run.snapshot(), np.frombuffer(following, MBO)]:
        if records.dtype == SYMBOL_MAPPING:
            resolver.learn(records)
        else:
            books.apply(resolver.batch(records))
    labels = resolver.instruments.labels
    return {
        labels[view.instrument]: [
            (price // 10**9, size) for side in "BA" for price, size, _ in view.levels(side).tolist()
        ]
        for view in views(books)
    }


async def test_books_of_what_an_id_meant_before_keep_their_names(tmp_path):
    """A live capture maps an id to another symbol while the first one's book has orders."""
    metadata = header({}, schema=None)
    path = write(
        tmp_path / "live.dbn",
        metadata,
        mapping(7, "AAPL", MAY_1),
        order(7, MAY_1 + 1, "R"),
        order(7, MAY_1 + 2, "A", "B", 170, 1, order_id=1),
        mapping(7, "MSFT", MAY_1 + 3),
        order(7, MAY_1 + 4, "A", "A", 400, 2, order_id=2),
    )
    following = order(7, MAY_1 + 5, "A", "A", 401, 3, order_id=3)
    assert await joined(path, metadata, following) == {
        "AAPL": [(170, 1)],
        "MSFT": [(400, 2), (401, 3)],
    }


async def test_books_of_an_id_on_two_days_are_two(tmp_path):
    metadata = header({"AAPL": {1: 7, 2: 8}, "MSFT": {2: 7}}, "mbo")
    path = write(
        tmp_path / "days.dbn",
        metadata,
        order(7, MAY_1 + 1, "R"),
        order(7, MAY_1 + 2, "A", "B", 170, 1, order_id=1),
        order(7, MAY_1 + DAY, "A", "A", 400, 2, order_id=2),
    )
    following = order(8, MAY_1 + DAY + 1, "A", "B", 169, 3, order_id=3)
    assert await joined(path, metadata, following) == {
        "AAPL": [(170, 1), (169, 3)],
        "MSFT": [(400, 2)],
    }
