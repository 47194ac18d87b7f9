"""Long files of orders and trades, and a zstd pass, the lower bound of reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import zstandard

from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.core.batch import Batch
from mdtool.core.dtypes import F_LAST
from mdtool.core.records import Records
from mdtool.core.units import NS_PER_S, UNDEF_PRICE
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn_metadata import make_metadata

_BUFFER_BYTES: Final = 1 << 20
IDS_OF_A_REPEAT: Final = 1 << 44
"""A number higher than the id of any order."""


def write_recording(path: Path, session: Records, repeats: int = 1) -> int:
    """Write a session of MBO records to a file repeatedly, with new ids and later times.

    Each repeat begins with a clear of every book, as days do.

    Parameters
    ----------
    path : Path
        Compressed if it ends with .zst.
    session : MBO[n]
        It is not changed.
    repeats : int

    Returns
    -------
    int
        How many records the file has.
    """
    spec = OutputSpec("dbn.zst" if path.suffix == ".zst" else "dbn", str(path))
    start_ns = int(session["ts_recv"][0])
    span_ns = int(session["ts_recv"][-1]) - start_ns + NS_PER_S
    repeat = np.concatenate([_clears(session), session])
    output = open_output(spec, make_metadata("BENCH", "mbo", start_ns))
    for _ in range(repeats):
        output.write(Batch.of(repeat))
        repeat["order_id"] += np.uint64(IDS_OF_A_REPEAT)
        for name in ("ts_event", "ts_recv"):
            repeat[name] += np.uint64(span_ns)
    output.close()
    return repeats * len(repeat)


def _clears(session: Records) -> Records:
    """Return a clear of every book of a session, at its start."""
    books = session[["publisher_id", "instrument_id"]]
    clears = session[np.unique(books, return_index=True)[1]].copy()
    for name in ("ts_event", "ts_recv", "sequence"):
        clears[name] = session[name][0]
    clears["order_id"] = clears["size"] = 0
    clears["price"] = UNDEF_PRICE
    clears["action"], clears["side"], clears["flags"] = b"R", b"N", F_LAST
    return clears


def simulated_trades(n: int) -> Records:
    """Return the first trades of one simulated symbol."""
    exchange = Exchange(["AAPL"], seed=1)
    runs: list[Records] = []
    while sum(map(len, runs)) < n:
        runs.append(exchange.generate(n, "trades"))
    return np.concatenate(runs)[:n]


def write_trades(path: Path, session: Records, repeats: int = 1) -> int:
    """Write trades repeatedly, each time with later timestamps; return how many there are.

    The file is compressed if its name ends with .zst.
    """
    repeat = session.copy()
    start_ns = int(session["ts_recv"][0])
    span_ns = int(session["ts_recv"][-1]) - start_ns + NS_PER_S
    spec = OutputSpec("dbn.zst" if path.suffix == ".zst" else "dbn", str(path))
    output = open_output(spec, make_metadata("BENCH", "trades", start_ns))
    for _ in range(repeats):
        output.write(Batch.of(repeat))
        for name in ("ts_event", "ts_recv"):
            repeat[name] += np.uint64(span_ns)
    output.close()
    return repeats * len(session)


def zstd_pass(path: Path) -> int:
    """Decompress a file and discard it; return the number of its bytes."""
    buffer = bytearray(_BUFFER_BYTES)
    n_bytes = 0
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(
            file, read_size=_BUFFER_BYTES, read_across_frames=True
        )
        while read := reader.readinto(buffer):
            n_bytes += read
    return n_bytes
