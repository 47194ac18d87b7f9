"""Long files of orders to measure on, and the least that reading them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import zstandard

from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.core.records import Records
from mdtool.core.units import NS_PER_S
from mdtool.wire.dbn_metadata import make_metadata

_BUFFER_BYTES: Final = 1 << 20
_IDS_OF_A_REPEAT: Final = 1 << 58
"""More than any order's id in a stream that is repeated at most 32 times."""


def write_recording(path: Path, stream: Records, repeats: int = 1) -> int:
    """Write MBO records to a file, over and over with fresh ids and later times.

    Parameters
    ----------
    path : Path
        Its name says whether it is compressed.
    stream : MBO[n]
        Is not changed.
    repeats : int

    Returns
    -------
    int
        How many records the file has.
    """
    spec = OutputSpec("dbn.zst" if path.suffix == ".zst" else "dbn", str(path))
    start_ns = int(stream["ts_recv"][0])
    span_ns = int(stream["ts_recv"][-1]) - start_ns + NS_PER_S
    output = open_output(spec, make_metadata("BENCH", "mbo", start_ns))
    for number in range(repeats):
        repeat = stream.copy() if number else stream
        if number:
            repeat["order_id"] += np.uint64(number * _IDS_OF_A_REPEAT)
            for name in ("ts_event", "ts_recv"):
                repeat[name] += np.uint64(number * span_ns)
        output.write(repeat)
    output.close()
    return repeats * len(stream)


def zstd_pass(path: Path) -> int:
    """Decompress a file and do nothing with it; return how many bytes it holds."""
    buffer = bytearray(_BUFFER_BYTES)
    n_bytes = 0
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(
            file, read_size=_BUFFER_BYTES, read_across_frames=True
        )
        while read := reader.readinto(buffer):
            n_bytes += read
    return n_bytes
