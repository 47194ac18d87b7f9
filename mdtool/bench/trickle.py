"""What live ticks cost the whole stack with its source, and how long each takes to a WebSocket."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.bench import baselines, latency
from mdtool.bench.figures import Figure, against
from mdtool.bench.process_trees import cpu_s, family, proportional_mb
from mdtool.bench.processes import addresses, stack

SECONDS: Final = 10.0
TICKS: Final = 5_000
_SETTLE_S: Final = 2.0
_TOGETHER: Final = ()
_PROCESSES: Final = ("--processes",)


async def measure(seconds: float = SECONDS, ticks: int = TICKS) -> list[Figure]:
    """Return cores at 1,000 and 100 ticks a second, milliseconds to a WebSocket, and MB at rest.

    Cores are the CPU time of all processes, simulated source included, by the time that passed;
    nobody subscribes. For latency, ticks come from this process, as in `bench latency`, whose
    baseline it has.
    """
    one = {rate: await _cores(seconds, rate, "--memory") for rate in (1_000, 100)}
    each = {rate: await _cores(seconds, rate, "--memory", *_PROCESSES) for rate in (1_000, 100)}
    with tempfile.TemporaryDirectory(prefix="mdtool-trickle-") as folder:
        stored = await _cores(seconds, 1_000, "--data-dir", folder)
    figures = [
        _cores_figure("trickle_1000", one[1_000], each[1_000]),
        _cores_figure("trickle_100", one[100], each[100]),
        Figure("trickle_1000_stored", stored, "cores", "lower"),
        Figure("trickle_1000_processes", each[1_000], "cores", "lower"),
        Figure("trickle_100_processes", each[100], "cores", "lower"),
    ]
    async with addresses(baselines.MODULE, "relay") as relay:
        bare_ms = await latency.times_ms(relay["tcp"], relay["http"], ticks)
    for form, options in (("", _TOGETHER), ("_processes", _PROCESSES)):
        async with stack("--memory", *options) as (child, found):
            mb = sum(proportional_mb(each) for each in family(child.pid))
            ingest, gateway = found["serve-tcp tcp"], found["gateway http"]
            times_ms = await latency.times_ms(ingest, gateway, ticks)
        figures += [_latency_figure(form, each, times_ms, bare_ms) for each in (50, 99)]
        figures.append(Figure(f"trickle_rest{form}", mb, "MB", "lower"))
    return figures


def _cores_figure(name: str, together: float, separate: float) -> Figure:
    return against(name, together, "cores", "a process for each service", separate, "lower")


def _latency_figure(
    form: str, percentile: int, times_ms: NDArray[np.float64], bare_ms: NDArray[np.float64]
) -> Figure:
    value, bare = (float(np.percentile(each, percentile)) for each in (times_ms, bare_ms))
    name = f"trickle_p{percentile}{form}"
    return against(name, value, "ms", "one process that relays", bare, "lower")


async def _cores(seconds: float, rate: int, *options: str) -> float:
    """Return how many cores a stack uses while it is sent simulated ticks."""
    async with stack("--simulate", "--rate", str(rate), *options) as (child, _):
        await asyncio.sleep(_SETTLE_S)
        members = [*family(child.pid)]
        loop = asyncio.get_running_loop()
        began_s, used_s = loop.time(), sum(map(cpu_s, members))
        await asyncio.sleep(seconds)
        return (sum(map(cpu_s, members)) - used_s) / (loop.time() - began_s)
