"""What `mdtool replay-dbn` costs as text and as columns, and of files that are merged.

All figures are records per second of CPU time, so that other load and a second core do not count.
"""

from __future__ import annotations

import hashlib
import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import databento_dbn as dbn
import numpy as np

from mdtool.adapters.dbn_files import open_source
from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.processes import run_command
from mdtool.bench.recordings import write_recording
from mdtool.core.batch import Batch
from mdtool.core.dtypes import RTYPE_MBO
from mdtool.core.errors import CheckError
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn_metadata import with_schema

RECORDS: Final = 2_000_000
_REPEATS: Final = 2
_ROUNDS: Final = 3
_CHUNK_BYTES: Final = 1 << 20
_LETTERS: Final = {"csv": "-C", "json": "-J"}
_STYLES: Final = {"": (), "_pretty": ("-p", "-s")}


def measure(records: int = RECORDS, repeats: int = _REPEATS, rounds: int = _ROUNDS) -> list[Figure]:
    """Return the figures of text, of merges and of Parquet.

    The baseline of text is databento_dbn's Transcoder alone on the same file; of a merge, the
    command on each of the files; of Parquet, pyarrow alone with the columns of one layout in
    memory.

    Raises
    ------
    CheckError
        When the command and the Transcoder write different bytes.
    """
    with tempfile.TemporaryDirectory() as folder:
        orders, trades = Path(folder) / "mbo.dbn", Path(folder) / "trades.dbn"
        stream = Exchange(seed=1).generate(records)[:records]
        n_orders = write_recording(orders, stream, repeats)
        n_trades = _write_trades(orders, trades)
        return [
            *_text(orders, "mbo", n_orders, rounds),
            *_text(trades, "trades", n_trades, rounds),
            _merge([orders, trades], n_orders + n_trades, rounds),
            _parquet(orders, n_orders, rounds),
        ]


def _write_trades(orders: Path, path: Path) -> int:
    """Write every record of a file of orders as a trade; return how many."""
    with open_source(str(orders)) as source:
        output = open_output(OutputSpec("dbn", str(path)), with_schema(source.metadata, "trades"))
        n_trades = 0
        for batch in source:
            records = batch.records.copy()
            records["action"] = b"T"
            output.write(Batch.of(records).trades())
            n_trades += len(batch)
        output.close()
    return n_trades


def _text(path: Path, schema: str, n_records: int, rounds: int) -> Iterator[Figure]:
    for encoding, letter in _LETTERS.items():
        for style, options in _STYLES.items():
            _check_same(path, encoding, [letter, *options])
            yield _rates(
                f"{schema}_{encoding}{style}",
                n_records,
                rounds,
                partial(run_command, "replay-dbn", path, letter, *options),
                "databento_dbn's Transcoder alone",
                partial(_transcode, path, encoding, bool(options), _Discard()),
            )


def _merge(paths: list[Path], n_records: int, rounds: int) -> Figure:
    return _rates(
        "merge_dbn",
        n_records,
        rounds,
        lambda: run_command("replay-dbn", *paths, "-D"),
        "each file alone",
        partial(_replay_each, paths),
    )


def _replay_each(paths: list[Path]) -> None:
    for path in paths:
        run_command("replay-dbn", path, "-D")


def _parquet(path: Path, n_records: int, rounds: int) -> Figure:
    import pyarrow as pa
    import pyarrow.parquet

    from mdtool.adapters.outputs.columns import GROUP_RECORDS, columns_of
    from mdtool.wire.dbn_records import RECORD_TYPES

    with open_source(str(path)) as source:
        records = np.concatenate([batch.records for batch in source])
    columns = pa.table(columns_of(records, RECORD_TYPES[RTYPE_MBO], path.name, prices="int"))
    written = path.with_suffix(".parquet")

    def write_columns() -> None:
        pyarrow.parquet.write_table(
            columns, io.BytesIO(), compression="zstd", row_group_size=GROUP_RECORDS
        )

    return _rates(
        "parquet",
        n_records,
        rounds,
        lambda: run_command("replay-dbn", path, "-f", "-o", written, "--prices", "int"),
        "pyarrow alone, from columns in memory",
        write_columns,
    )


def _rates(
    name: str,
    n_records: int,
    rounds: int,
    way: Callable[[], object],
    baseline: str,
    other: Callable[[], object],
) -> Figure:
    """Return records per CPU second of two ways, which take turns."""
    pairs = [(n_records / _cpu_s(way), n_records / _cpu_s(other)) for _ in range(rounds)]
    return in_turns(name, "records/s", baseline, pairs)


def _cpu_s(way: Callable[[], object]) -> float:
    """Return the CPU time of this process and its children, the system's share included."""
    begun_s = _used_s()
    way()
    return _used_s() - begun_s


def _used_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _check_same(path: Path, encoding: str, options: list[str]) -> None:
    """Raise where the command and the Transcoder write different bytes."""
    ours, theirs = hashlib.blake2b(), _Digest()
    command = [sys.executable, "-m", "mdtool", "replay-dbn", str(path), "-q", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while data := process.stdout.read(_CHUNK_BYTES):
            ours.update(data)
    _transcode(path, encoding, len(options) > 1, theirs)
    if ours.digest() != theirs.digest.digest():
        raise CheckError(f"{' '.join(options)}: differs from what databento_dbn writes")


def _transcode(path: Path, encoding: str, is_pretty: bool, written: io.RawIOBase) -> None:
    """Encode a file with databento_dbn's Transcoder."""
    transcoder = dbn.Transcoder(
        cast("BinaryIO", written),
        dbn.Encoding(encoding),
        dbn.Compression("none"),
        pretty_px=is_pretty,
        pretty_ts=is_pretty,
        map_symbols=is_pretty,
    )
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            transcoder.write(data)
    transcoder.flush()


class _Discard(io.RawIOBase):
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Digest(io.RawIOBase):
    """A file that keeps a digest."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return len(data)
