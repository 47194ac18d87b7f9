"""How long `mdtool replay-dbn` takes over a long file, beside the least that reading it takes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import databento_dbn as dbn

from mdtool.bench.figures import Figure, against
from mdtool.bench.processes import run_command, wall_times_s
from mdtool.bench.recordings import write_recording, zstd_pass
from mdtool.engine.simulate import Exchange

RECORDS: Final = 4_000_000
REPEATS: Final = 2
_ROUNDS: Final = 3
_CHUNK_BYTES: Final = 1 << 20


def measure(records: int = RECORDS, repeats: int = REPEATS, rounds: int = _ROUNDS) -> list[Figure]:
    """Return how many MBO records a second are read and written as DBN; medians of wall times.

    The baselines only read: one decompresses, the other makes databento_dbn's objects.
    """
    stream = Exchange(seed=1).generate(records)[:records]
    with tempfile.TemporaryDirectory() as folder:
        compressed, plain = Path(folder) / "f.dbn.zst", Path(folder) / "f.dbn"
        n_records = write_recording(compressed, stream, repeats)
        write_recording(plain, stream, repeats)
        zstd_s, alone_s, plain_s, decoded_s = wall_times_s(
            rounds,
            lambda: run_command("replay-dbn", compressed, "-D"),
            lambda: zstd_pass(compressed),
            lambda: run_command("replay-dbn", plain, "-D"),
            lambda: _decode(plain),
        )
    return [
        against(
            "replay_zstd",
            n_records / zstd_s,
            "records/s",
            "a zstd pass alone",
            n_records / alone_s,
        ),
        against(
            "replay_dbn",
            n_records / plain_s,
            "records/s",
            "databento_dbn decoding alone",
            n_records / decoded_s,
        ),
    ]


def _decode(path: Path) -> int:
    """Decode a file with databento_dbn; return how many records it has."""
    decoder = dbn.DBNDecoder()
    n_records = 0
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            n_records += len(decoder.write_and_decode(data))
    return n_records
