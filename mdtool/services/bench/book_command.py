"""How long `mdtool book` takes over a long file, from its start to its end, and a short one."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from mdtool.adapters.dbn_files import open_source
from mdtool.core.records import Records
from mdtool.engine.book.state import Books
from mdtool.services.bench.commands import run_command, wall_times_s
from mdtool.services.bench.figures import Figure, against
from mdtool.services.bench.recordings import write_recording, zstd_pass

REPEATS: Final = 4
"""Of a stream of 4 million records: less would measure how long Python takes to start."""
SHORT_RECORDS: Final = 10_000
_ROUNDS: Final = 3


def measure(stream: Records, repeats: int = REPEATS, rounds: int = _ROUNDS) -> list[Figure]:
    """Return what the command takes with the kernels cached; medians of wall times of processes.

    Parameters
    ----------
    stream : MBO[n]
        What the file has, `repeats` times over.
    """
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "long.dbn.zst", Path(folder) / "short.dbn.zst"
        write_recording(long, stream, repeats)
        write_recording(short, stream[:SHORT_RECORDS])
        for letter in ("-J", "-C"):
            run_command("book", short, "--emit", "event", letter)
        return [
            _first_result(short, rounds),
            _final(long, rounds),
            *_events(long, stream, rounds),
        ]


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


def _events(path: Path, stream: Records, rounds: int) -> list[Figure]:
    """Return how many depth records a second come out in each format."""
    of_stream = sum(len(made) for made in Books().events(stream))
    of_file = _depth_records(path)
    [dbn_s, json_s, csv_s] = wall_times_s(
        rounds,
        lambda: run_command("book", path, "--emit", "event", "-D"),
        lambda: run_command("book", path, "--emit", "event", "-J", "--limit", of_stream),
        lambda: run_command("book", path, "--emit", "event", "-C", "--limit", of_stream),
    )
    return [
        Figure("book_event_dbn", of_file / dbn_s, "records/s"),
        Figure("book_event_json", of_stream / json_s, "records/s"),
        Figure("book_event_csv", of_stream / csv_s, "records/s"),
    ]


def _depth_records(path: Path) -> int:
    books = Books()
    with open_source(str(path)) as source:
        return sum(len(made) for records in source for made in books.events(records))
