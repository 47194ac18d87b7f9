"""How long `mdtool book` takes over a long file, from its start to its end, and a short one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from mdtool.adapters.dbn_files import open_source
from mdtool.bench.commands import run_command, wall_times_s
from mdtool.bench.figures import Figure, against
from mdtool.bench.recordings import write_recording, zstd_pass
from mdtool.core.records import Records
from mdtool.engine.book.state import Books

LENGTH: Final = 4
"""How many times the records that are measured in memory the file has: less would be a measure of
how long Python takes to start."""
SHORT_RECORDS: Final = 10_000
_ROUNDS: Final = 3


def measure(session: Records, records: int, rounds: int = _ROUNDS) -> list[Figure]:
    """Return what the command takes with the kernels cached; medians of wall times of processes.

    Parameters
    ----------
    session : MBO[n]
        What the file has over and over.
    records : int
        The text of the first so many is measured, of a file of `LENGTH` times as many.
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
    """Return how many depth records a second come out in each format."""
    of_first, of_all = _depth_records(path, records)
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


def _depth_records(path: Path, first: int) -> tuple[int, int]:
    """Return how many depth records the first orders of a file make, about, and how many all do."""
    books = Books()
    of_first = of_all = taken = 0
    with open_source(str(path)) as source:
        for records in source:
            of_all += sum(len(made) for made in books.events(records))
            taken += len(records)
            if taken <= max(first, len(records)):
                of_first = of_all
    return of_first, of_all
