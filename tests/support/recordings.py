"""Simulated DBN files, and the books of one pass over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mdtool.core.instruments import Instruments
from mdtool.engine.book.snapshot import Snapshot, mbo_snapshot
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import views
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata
from tests.support.instruments import batch


def record(path: Path, n: int, seed: int = 1, rate: float = 1_000.0) -> np.ndarray:
    """Write a file of about `n` simulated MBO records; return them."""
    exchange = Exchange(seed=seed, rate=rate)
    records = exchange.generate(n)
    write(path, records, exchange.instruments)
    return records


def write(path: Path, records: np.ndarray, instruments: dict[int, str]) -> None:
    """Write MBO records as a file."""
    metadata = make_metadata("XSIM.TEST", "mbo", int(records["ts_recv"][0]), None, instruments)
    path.write_bytes(encode_metadata(metadata) + bytes(encode_records(records)))


def books_of(*streams: np.ndarray) -> Books:
    """The books of one pass over streams."""
    books = Books()
    for stream in streams:
        books.apply(batch(stream))
    return books


def snapshot_of(books: Books) -> np.ndarray:
    """The books as MBO records."""
    return mbo_snapshot(books, Instruments()).records


def content(books: Books) -> dict:
    """All levels, and all orders with their places in the queues."""
    return {
        (view.publisher_id, view.instrument_id): [
            (view.levels(side).tolist(), view.orders(side).tolist()) for side in "BA"
        ]
        for view in views(books)
    }


def pictures(records: np.ndarray, instruments: dict[int, str], depth: int = 10) -> dict:
    """The final snapshot of every book of a stream, by symbol, as JSON has it."""
    return {
        symbol: Snapshot.of(view, depth).as_dict(symbol)
        for view in views(books_of(records))
        for symbol in [instruments[view.instrument_id]]
    }
