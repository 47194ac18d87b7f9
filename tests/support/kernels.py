"""Kernels compiled before tests run commands: the first use takes time, and logs a line."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from deploy.kernels import COMMANDS
from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO, MBP1
from mdtool.core.jit import cache_folder
from mdtool.engine.book.state import Books
from mdtool.engine.quotes import LatestQuotes
from mdtool.services.book import server as book
from mdtool.services.ingest import server as ingest
from mdtool.services.live_gateway import server as live_gateway
from mdtool.wire.tick_encoder import encode_frames

_ROOT: Final = Path(__file__).parents[2]
SAMPLES: Final = _ROOT / "sample_data"


def compile_kernels() -> None:
    """Compile the current kernels, unless they are cached."""
    folder = cache_folder()
    kernels = sorted((_ROOT / "mdtool").rglob("*kernel.py"))
    versions = [(str(path), path.stat().st_mtime_ns) for path in kernels]
    compiled = folder / f"compiled-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the run may be at it
        if not compiled.exists():
            _run_all()
            compiled.touch()


def _run_all() -> None:
    ingest._warm_up()
    book.warm_up()
    encode_frames(["A"], [0], [1], [1], [1])
    for layout in (MBO, MBP1):
        LatestQuotes().update(Batch.of(np.zeros(1, layout)))
    _grow_books()
    for name in ("mbo", "trades"):
        for played in live_gateway.inputs([str(SAMPLES / f"{name}.dbn.zst")], None).values():
            live_gateway._probe(played, live_gateway.LiveGatewayConfig())
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            words = command.format(samples=SAMPLES).split()
            subprocess.run(
                [sys.executable, "-m", "mdtool", *words],
                cwd=folder,
                check=True,
                capture_output=True,
            )


def _grow_books() -> None:
    """Add more orders than new books have room for."""
    orders = np.zeros(1 << 15, MBO)
    orders["order_id"] = np.arange(1, len(orders) + 1)
    orders["price"] = orders["size"] = 1
    orders["action"], orders["side"] = b"A", b"B"
    Books().apply(Batch.of(orders))
