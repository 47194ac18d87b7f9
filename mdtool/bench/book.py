"""How fast order books are rebuilt: in memory beside plain Python, and by `mdtool book`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import numpy as np

from mdtool.adapters.dbn_files import open_source
from mdtool.bench import plain_book
from mdtool.bench.figures import Figure, against
from mdtool.bench.processes import run_command, wall_times_s
from mdtool.bench.recordings import IDS_OF_A_REPEAT, write_recording, zstd_pass
from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO
from mdtool.core.errors import CheckError
from mdtool.core.records import Records
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import views
from mdtool.engine.simulate import Exchange

T = TypeVar("T")

EVENTS: Final = 4_000_000
REAL_FILE: Final = "CLX5_mbo.dbn"
"""The file that is measured, if MDTOOL_TEST_DATA has it; else a market is simulated."""
LENGTH: Final = 4
"""How many times the records in memory a file has: a shorter one would measure Python's start."""
SHORT_RECORDS: Final = 10_000
_ROUNDS: Final = 3


def measure(events: int = EVENTS, rounds: int = _ROUNDS) -> list[Figure]:
    """Return how many MBO records a second of one core are applied, and depth records made.

    Then the figures of the command over the same records in a file.
    """
    return [*_in_memory(order_stream(events)), *_command(_session(events), events, rounds)]


def _in_memory(stream: Batch) -> list[Figure]:
    """Return the figures of a stream in memory, as the decoder yields it.

    The baseline applies the same array record by record, in turns with the kernel; each figure is
    its median round.

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


def order_stream(events: int) -> Batch:
    """Return as many MBO records: a session over and over with fresh ids."""
    session = _session(events)
    stream = np.resize(session, events)
    rounds = np.arange(events, dtype=np.uint64) // np.uint64(len(session))
    stream["order_id"] += rounds * np.uint64(IDS_OF_A_REPEAT)
    batch = Batch.of(stream)
    batch.instrument  # noqa: B018 - resolved here, so that it is not measured
    return batch


def _session(events: int) -> Records:
    """Return the MBO records of a real session, else as many simulated ones."""
    path = Path(os.environ.get("MDTOOL_TEST_DATA", "")) / REAL_FILE
    if not path.is_file():
        return Exchange().generate(events)[:events]
    with open_source(str(path)) as source:
        return np.concatenate([run.records for run in source if run.records.dtype == MBO])


def _applied(stream: Batch) -> Books:
    books = Books()
    books.apply(stream)
    return books


def _applied_plainly(stream: Batch) -> dict[plain_book.Key, plain_book.PlainBook]:
    books: dict[plain_book.Key, plain_book.PlainBook] = {}
    plain_book.apply(books, stream.records)
    return books


def _depth_records(stream: Batch) -> int:
    """Return how many MBP-10 records a stream makes."""
    return sum(len(run) for run in Books().events(stream))


def _timed(way: Callable[[], T]) -> tuple[T, float]:
    """Return the result of a function, and the process's own seconds that it takes."""
    begun = time.process_time()
    result = way()
    return result, time.process_time() - begun


def _check_same(books: Books, plain_books: dict[plain_book.Key, plain_book.PlainBook]) -> None:
    """Raise where the levels of a book differ."""
    for view in views(books):
        key = (view.publisher_id, view.instrument_id)
        plain = plain_books[key]
        if any(
            view.levels(side).tolist() != [*plain.best_first(side.encode())] for side in ("B", "A")
        ):
            raise CheckError(f"the kernel and the plain book differ about {key}")


def _command(session: Records, records: int, rounds: int) -> list[Figure]:
    """Return the figures of the command with cached kernels; medians of wall times.

    Parameters
    ----------
    session : MBO[n]
        What the file repeats.
    records : int
        How many records are encoded as text, of a file of `LENGTH` times as many.
    """
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "long.dbn.zst", Path(folder) / "short.dbn.zst"
        write_recording(long, session, -(-LENGTH * records // len(session)))
        write_recording(short, session[:SHORT_RECORDS])
        for letter in ("-J", "-C"):
            run_command("book", short, "--emit", "event", letter)
        return [_first_result(short, rounds), _final(long, rounds), *_events(long, records, rounds)]


def _first_result(path: Path, rounds: int) -> Figure:
    value_s, baseline_s = wall_times_s(
        rounds,
        lambda: run_command("book", path, "--json"),
        lambda: subprocess.run([sys.executable, "-c", "import numba"], check=True),
    )
    return against(
        "book_first_result", value_s, "s", "Python, importing numba", baseline_s, better="lower"
    )


def _final(path: Path, rounds: int) -> Figure:
    value_s, baseline_s = wall_times_s(
        rounds,
        lambda: run_command("book", path, "--emit", "final", "--json"),
        lambda: zstd_pass(path),
    )
    return against("book_final", value_s, "s", "a zstd pass alone", baseline_s, better="lower")


def _events(path: Path, records: int, rounds: int) -> list[Figure]:
    """Return how many depth records a second are written in each format."""
    of_first, of_all = _count_depth_records(path, records)
    [dbn_s, json_s, csv_s] = wall_times_s(
        rounds,
        lambda: run_command("book", path, "--emit", "event", "-D"),
        lambda: run_command("book", path, "--emit", "event", "-J", "--limit", of_first),
        lambda: run_command("book", path, "--emit", "event", "-C", "--limit", of_first),
    )
    return [
        Figure("book_event_dbn", of_all / dbn_s, "records/s"),
        Figure("book_event_json", of_first / json_s, "records/s"),
        Figure("book_event_csv", of_first / csv_s, "records/s"),
    ]


def _count_depth_records(path: Path, first: int) -> tuple[int, int]:
    """Return how many depth records the first records of a file make, about, and all of them."""
    books = Books()
    of_first = of_all = taken = 0
    with open_source(str(path)) as source:
        for batch in source:
            of_all += sum(len(made) for made in books.events(batch))
            taken += len(batch)
            if taken <= max(first, len(batch)):
                of_first = of_all
    return of_first, of_all
