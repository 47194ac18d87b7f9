"""What a receiver is sent that joins a run in the middle."""

from __future__ import annotations

import asyncio

import numpy as np

from mdtool.adapters.dbn_files import Recording
from mdtool.core.dtypes import MBO, SYMBOL_MAPPING
from mdtool.core.instruments import Instruments
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import views
from mdtool.services.replay.runs import Pace, Run
from tests.support.dbn_files import MAY_1, header, mapping, order, write


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
    run = Run(Recording((str(path),)), Pace(0), 0, 1 << 20)
    playing = asyncio.create_task(run.play())
    await run.reached(5)
    snapshot = run.snapshot()
    await playing
    resolver, books = Instruments().resolver("receiver", metadata), Books()
    for records in [
        *snapshot,
        np.frombuffer(order(7, MAY_1 + 5, "A", "A", 401, 3, order_id=3), MBO),
    ]:
        if records.dtype == SYMBOL_MAPPING:
            resolver.learn(records)
        else:
            books.apply(resolver.batch(records))
    shown = {
        resolver.instruments[view.instrument].label: view.levels("B").tolist()
        + view.levels("A").tolist()
        for view in views(books)
    }
    dollar = 10**9
    assert shown == {
        "AAPL": [(170 * dollar, 1, 1)],
        "MSFT": [(400 * dollar, 2, 1), (401 * dollar, 3, 1)],
    }
