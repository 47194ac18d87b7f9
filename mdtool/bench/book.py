"""How fast order books are rebuilt from MBO records, beside the same in plain Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import numpy as np

from mdtool.adapters.dbn_files import open_source
from mdtool.bench import book_command, plain_book
from mdtool.bench.figures import Figure, against
from mdtool.bench.recordings import IDS_OF_A_REPEAT
from mdtool.core.dtypes import MBO
from mdtool.core.errors import CheckError
from mdtool.core.records import Records
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from mdtool.engine.simulate import Exchange

T = TypeVar("T")

EVENTS: Final = 4_000_000
REAL_FILE: Final = "CLX5_mbo.dbn"
"""Measured over where the folder that MDTOOL_TEST_DATA names has it, else a simulated market."""

_ROUNDS: Final = 3


def measure(events: int = EVENTS) -> list[Figure]:
    """Return how many MBO records a second of one core are applied, and depth records made.

    Then what the command makes of the same records in a file.
    """
    return [*_in_memory(_stream(events)), *book_command.measure(_session(events), events)]


def _in_memory(stream: Records) -> list[Figure]:
    """Return the figures of a stream that lies in memory as the decoder gives it.

    The baseline reads the same array as Python does, record after record, in rounds that take
    turns with those of the kernel; each figure is its median round.

    Raises
    ------
    CheckError
        When the two end with different books, so that their speeds mean nothing.
    """
    books, plain_books = _applied(stream[:1]), _applied_plainly(stream[:1])
    applied_s: list[float] = []
    plain_s: list[float] = []
    depth_s: list[float] = []
    made = 0
    for _ in range(_ROUNDS):
        books, taken_s = _timed(lambda: _applied(stream))
        applied_s.append(taken_s)
        plain_books, taken_s = _timed(lambda: _applied_plainly(stream))
        plain_s.append(taken_s)
        made, taken_s = _timed(lambda: _depth_records(stream))
        depth_s.append(taken_s)
    _check_same(books, plain_books)
    return [
        against(
            "book_events",
            len(stream) / median(applied_s),
            "events/s",
            "a book in plain Python",
            len(stream) / median(plain_s),
        ),
        Figure("book_mbp10", made / median(depth_s), "records/s"),
    ]


def _stream(events: int) -> Records:
    """Return as many MBO records: a session over and over with fresh ids."""
    session = _session(events)
    stream = np.resize(session, events)
    rounds = np.arange(events, dtype=np.uint64) // np.uint64(len(session))
    stream["order_id"] += rounds * np.uint64(IDS_OF_A_REPEAT)
    return stream


def _session(events: int) -> Records:
    """Return the MBO records of a real session, else as many simulated ones."""
    path = Path(os.environ.get("MDTOOL_TEST_DATA", "")) / REAL_FILE
    if not path.is_file():
        return Exchange().generate(events)[:events]
    with open_source(str(path)) as source:
        return np.concatenate([run for run in source if run.dtype == MBO])


def _applied(stream: Records) -> Books:
    books = Books()
    books.apply(stream)
    return books


def _applied_plainly(stream: Records) -> dict[plain_book.Key, plain_book.PlainBook]:
    books: dict[plain_book.Key, plain_book.PlainBook] = {}
    plain_book.apply(books, stream)
    return books


def _depth_records(stream: Records) -> int:
    """Return how many MBP-10 records a stream makes."""
    return sum(len(run) for run in Books().events(stream))


def _timed(way: Callable[[], T]) -> tuple[T, float]:
    """Return what a way comes to, and how many seconds of the process's own it takes."""
    begun = time.process_time()
    result = way()
    return result, time.process_time() - begun


def _check_same(books: Books, plain_books: dict[plain_book.Key, plain_book.PlainBook]) -> None:
    """Raise where the levels of a book differ."""
    for key in books.book_keys():
        view, plain = BookView(books, key), plain_books[key]
        if any(
            view.levels(side).tolist() != [*plain.best_first(side.encode())] for side in ("B", "A")
        ):
            raise CheckError(f"the kernel and the plain book differ about {key}")
