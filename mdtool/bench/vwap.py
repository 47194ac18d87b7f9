"""The speed of `mdtool vwap` over a long file of trades, with a small and a large window."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from mdtool.bench.figures import Figure, against
from mdtool.bench.processes import run_command, wall_times_s
from mdtool.bench.recordings import simulated_trades, write_trades
from mdtool.core.batch import Batch
from mdtool.core.errors import CheckError
from mdtool.core.records import Records
from mdtool.engine.timed_trades import TimedTrades
from mdtool.engine.vwap import RollingVwap, Window

TRADES: Final = 16_000_000
"""Trades of one symbol, enough to fill a window of 10 million long before their end."""
SMALL: Final = 10
LARGE: Final = 10_000_000
_SESSION_TRADES: Final = 400_000
_PLAIN_TRADES: Final = 1_000_000
_ROUNDS: Final = 3


def measure(trades: int = TRADES, large: int = LARGE, rounds: int = _ROUNDS) -> list[Figure]:
    """Return how many trades a second the command takes, and the engine alone beside plain Python.

    The command's are medians of wall times of processes with cached kernels; the two windows are
    measured in turns.
    """
    session = simulated_trades(min(trades, _SESSION_TRADES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trades.dbn"
        n_trades = write_trades(path, session, -(-trades // len(session)))
        run_command("vwap", path, "--limit", 1)
        small_s, large_s = wall_times_s(
            rounds,
            lambda: run_command("vwap", path, "--window", SMALL, "-D"),
            lambda: run_command("vwap", path, "--window", large, "-D"),
        )
    return [
        Figure("vwap_filter", n_trades / small_s, "trades/s"),
        against(
            "vwap_filter_large",
            n_trades / large_s,
            "trades/s",
            f"a window of {SMALL} instead of {large:,}",
            n_trades / small_s,
        ),
        _engine(session, rounds),
    ]


def _engine(session: Records, rounds: int) -> Figure:
    """Return the speed of the kernel, beside a deque with running sums in plain Python.

    Raises
    ------
    CheckError
        When the two differ, so that their speeds mean nothing.
    """
    stream = np.resize(session, _PLAIN_TRADES)
    timed = TimedTrades.of(Batch.of(stream))
    trades = timed.trades
    price, size = trades.price.tolist(), trades.size.tolist()
    kernel_s: list[float] = []
    plain_s: list[float] = []
    for _ in range(rounds):
        engine = RollingVwap(Window(trades=SMALL))
        begun_s = time.process_time()
        found = engine.update(trades.symbol, trades.price, trades.size, timed.ts_ns)
        kernel_s.append(time.process_time() - begun_s)
        begun_s = time.process_time()
        plain = _plainly(price, size)
        plain_s.append(time.process_time() - begun_s)
        if np.abs(found.price - np.array(plain)).max() > 1:
            raise CheckError("the kernel and plain Python differ about a VWAP")
    return against(
        "vwap_kernel",
        len(stream) / median(kernel_s),
        "trades/s",
        "a deque in plain Python",
        len(stream) / median(plain_s),
    )


def _plainly(prices: list[int], sizes: list[int]) -> list[int]:
    """Return the VWAPs of one instrument's trades, cut to whole units."""
    window: deque[tuple[int, int]] = deque()
    notional = volume = 0
    found = []
    for price, size in zip(prices, sizes, strict=True):
        window.append((price, size))
        notional += price * size
        volume += size
        if len(window) > SMALL:
            old_price, old_size = window.popleft()
            notional -= old_price * old_size
            volume -= old_size
        found.append(notional // volume)
    return found
