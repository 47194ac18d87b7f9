"""What a start costs: time of commands that read files, and memory of services at rest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mdtool.bench.figures import Figure, against, in_turns
from mdtool.bench.processes import cpu_s, process, run_command, wall_times_s
from mdtool.bench.recordings import simulated_trades, write_recording, write_trades, zstd_pass
from mdtool.core.errors import MdtoolError
from mdtool.engine.simulate import Exchange

RECORDS: Final = 4_000_000
TRADES: Final = 10_000_000
_SESSION: Final = 400_000
_SMALL: Final = 1_000
_ROUNDS: Final = 5
_LONG_ROUNDS: Final = 3
_FIRST_USES: Final = ("book", "aggregate")
_STATM: Final = "/proc/{}/statm"
_IMPORTS_NUMPY: Final = f"import numpy; print(open({_STATM.format('self')!r}).read())"


def measure(records: int = RECORDS, trades: int = TRADES, rounds: int = _ROUNDS) -> list[Figure]:
    """Return CPU seconds of commands with compiled kernels, and resident MB of services.

    Small files are measured in turns with Python importing numpy, long ones with a zstd pass. The
    first use after an install, whose kernels have yet to be compiled, is measured on the clock,
    beside the second.
    """
    orders = Exchange(["AAPL"], seed=1).generate(min(records, _SESSION), "mbo")
    prints = simulated_trades(min(trades, _SESSION))
    with tempfile.TemporaryDirectory() as name, _caches(bytecode=Path(name) / "bytecode"):
        folder = Path(name)
        small_orders, long_orders = folder / "small.dbn", folder / "orders.dbn.zst"
        small_trades, long_trades = folder / "small_trades.dbn", folder / "trades.dbn.zst"
        write_recording(small_orders, orders[:_SMALL])
        write_trades(small_trades, prints[:_SMALL])
        figures = [
            _small("book", small_orders, rounds),
            _small("aggregate", small_trades, rounds),
        ]
        small = {"book": small_orders, "aggregate": small_trades}
        figures += [_first_use(command, small[command], folder) for command in _FIRST_USES]
        write_recording(long_orders, orders, -(-records // len(orders)))
        write_trades(long_trades, prints, -(-trades // len(prints)))
        figures.append(_long("book_final", long_orders, "book", "--emit", "final", "--json"))
        figures.append(_long("bars", long_trades, "aggregate", "--interval", "1m", "-D"))
    return [*figures, *asyncio.run(_at_rest())]


@contextlib.contextmanager
def _caches(bytecode: Path | None = None, kernels: Path | None = None) -> Iterator[None]:
    """Have the processes started meanwhile use other folders.

    They then load bytecode, as an install has it, also where this process writes none.
    """
    before = dict(os.environ)
    if bytecode is not None:
        os.environ["PYTHONPYCACHEPREFIX"] = str(bytecode)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if kernels is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(kernels)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _small(command: str, path: Path, rounds: int) -> Figure:
    pairs = _pairs(rounds, lambda: run_command(command, path, "--json"), _import_numpy)
    return in_turns(f"start_{command}", "s", "Python, importing numpy", pairs, better="lower")


def _first_use(command: str, path: Path, folder: Path) -> Figure:
    """Return the time of a command without compiled kernels, beside that of the next."""
    cache = folder / f"cache-of-{command}"

    def use() -> None:
        run_command(command, path, "--json")

    with _caches(kernels=cache):
        (first_s,) = wall_times_s(1, use)
        if not any(cache.rglob("*.code")):
            raise MdtoolError(f"{command}: compiled nothing in {cache}")
        (second_s,) = wall_times_s(1, use)
    return against(f"first_use_{command}", first_s, "s", "the second use", second_s, better="lower")


def _long(name: str, path: Path, command: str, *options: str) -> Figure:
    pairs = _pairs(
        _LONG_ROUNDS, lambda: run_command(command, path, *options), lambda: zstd_pass(path)
    )
    return in_turns(f"start_{name}", "s", "a zstd pass", pairs, better="lower")


def _pairs(
    rounds: int, run: Callable[[], object], run_baseline: Callable[[], object]
) -> list[tuple[float, float]]:
    """Return CPU times in turns, after one round that compiles kernels and fills caches."""
    pairs = [(cpu_s(run), cpu_s(run_baseline)) for _ in range(1 + rounds)]
    return pairs[1:]


def _import_numpy() -> str:
    command = [sys.executable, "-c", _IMPORTS_NUMPY]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def _at_rest() -> list[Figure]:
    """Return the resident MB of services that have started and received nothing."""
    python_mb = _resident_mb(await asyncio.to_thread(_import_numpy))
    figures: list[Figure] = []
    async with contextlib.AsyncExitStack() as running:
        options: tuple[str, ...] = ()
        for name in ("aggregate", "serve-tcp", "gateway"):
            child, addresses = await running.enter_async_context(
                process("mdtool", "--log-level", "warning", name, "--port", "0", *options)
            )
            if not options:
                (aggregator,) = addresses.values()
                options = ("--aggregator", aggregator)
            statm = await asyncio.to_thread(Path(_STATM.format(child.pid)).read_text)
            figures.append(
                against(
                    f"rest_{name.replace('-', '_')}",
                    _resident_mb(statm),
                    "MB",
                    "Python, importing numpy",
                    python_mb,
                    better="lower",
                )
            )
    return figures


def _resident_mb(statm: str) -> float:
    """Return the resident size that the second number of /proc/PID/statm is."""
    return int(statm.split()[1]) * resource.getpagesize() / (1 << 20)
