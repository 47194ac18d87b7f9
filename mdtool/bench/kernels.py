"""What kernels for any CPU, as the image has them, cost beside those for this machine's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Final, Literal

import numpy as np

from mdtool.bench.book import order_stream
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.recordings import simulated_trades
from mdtool.core.batch import Batch
from mdtool.core.errors import CheckError, MdtoolError
from mdtool.core.units import NS_PER_S
from mdtool.engine.bars import TimeBars
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import views
from mdtool.engine.timed_trades import TimedTrades
from mdtool.engine.vwap import RollingVwap, Window

RECORDS: Final = 400_000
ANY_CPU: Final = "generic"
_CPU_NAME: Final = "NUMBA_CPU_NAME"
_CPU_FEATURES: Final = "NUMBA_CPU_FEATURES"
_ROUNDS: Final = 3
_TIMES: Final = 15
_WINDOW: Final = 1_000
_SIDES: Final[tuple[Literal["B", "A"], ...]] = ("B", "A")
_UNITS: Final = {"book": "events/s", "bars": "trades/s", "vwap": "trades/s"}


def measure(records: int = RECORDS, rounds: int = _ROUNDS) -> list[Figure]:
    """Return records a second of kernels for any CPU, in turns with those for this machine's.

    Raises
    ------
    CheckError
        When the two have different results, so that their speeds mean nothing.
    """
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in _UNITS}
    with tempfile.TemporaryDirectory() as name:
        folders = {cpu: Path(name) / cpu for cpu in (ANY_CPU, "native")}
        for folder in folders.values():  # kernels are compiled in this round
            folder.mkdir()
            _apart(folder, _WINDOW)
        for _ in range(rounds):
            any_cpu, native = (_apart(folder, records) for folder in folders.values())
            for kernel, found in pairs.items():
                (any_s, any_digest), (native_s, native_digest) = any_cpu[kernel], native[kernel]
                if any_digest != native_digest:
                    raise CheckError(f"{kernel}: kernels for any CPU have other results")
                found.append((records / any_s, records / native_s))
    return [
        in_turns(f"kernels_{kernel}", unit, "kernels for this machine's CPU", pairs[kernel])
        for kernel, unit in _UNITS.items()
    ]


def work(records: int) -> dict[str, tuple[float, str]]:
    """Return the CPU seconds of each kernel in this process, and a digest of its result."""
    orders = order_stream(records)
    trades = TimedTrades.of(Batch.of(simulated_trades(records)))
    columns = trades.trades

    def book() -> bytes:
        books = Books()
        books.apply(orders)
        found = list(views(books))
        bids, asks = ([view.levels(side) for view in found] for side in _SIDES)
        return b"".join(levels.tobytes() for levels in (*bids, *asks))

    def bars() -> bytes:
        engine = TimeBars(NS_PER_S)
        return engine.update(trades).tobytes() + engine.close_all().tobytes()

    def vwap() -> bytes:
        engine = RollingVwap(Window(trades=_WINDOW))
        found = engine.update(columns.symbol, columns.price, columns.size, trades.ts_ns)
        return np.ascontiguousarray(found.price).tobytes()

    return {"book": _timed(book), "bars": _timed(bars), "vwap": _timed(vwap)}


def _timed(run: Callable[[], bytes]) -> tuple[float, str]:
    taken_s: list[float] = []
    result = run()
    for _ in range(_TIMES):
        begun_s = time.process_time()
        result = run()
        taken_s.append(time.process_time() - begun_s)
    return median(taken_s), blake2b(result).hexdigest()


def _apart(folder: Path, records: int) -> Mapping[str, tuple[float, str]]:
    """Work in a process with the kernels of a folder, which are for the CPU of its name."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {_CPU_NAME, _CPU_FEATURES}
    }
    environment["NUMBA_CACHE_DIR"] = str(folder)
    if folder.name == ANY_CPU:
        environment[_CPU_NAME] = ANY_CPU
    code = f"import json; from {__name__} import work; print(json.dumps(work({records})))"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise MdtoolError(f"kernels in {folder.name}: {ended.stderr.strip()}")
    found: Mapping[str, tuple[float, str]] = json.loads(ended.stdout)
    return found
