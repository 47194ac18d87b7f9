"""The dashboard in a browser under load: its frames, its memory, and how soon a price is live."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from mdtool.bench.browser import Tab, browser_tabs
from mdtool.bench.figures import Figure
from mdtool.bench.processes import stack
from mdtool.core.errors import UsageError

MINUTES: Final = 2.0
RATE: Final = 500
_SETTLE_S: Final = 20.0
"""Until charts and tape have all that they keep."""
_IDLE_S: Final = 30.0
_OPENINGS: Final = 5
_SLOW_MS: Final = 50.0
_SIZE: Final = (1_440, 900)
_LIVE: Final = """document.querySelector('.row:not(.stale) .last') !== null
    && document.querySelector('.row:not(.stale) .last').textContent !== '—'"""
_FRAMES: Final = """(() => {
    globalThis.frames = [];
    let before = performance.now();
    const note = (now) => {
        globalThis.frames.push(now - before);
        before = now;
        requestAnimationFrame(note);
    };
    requestAnimationFrame(note);
})()"""


async def measure(minutes: float = MINUTES, rate: int = RATE) -> list[Figure]:
    """Return the share of slow frames, the growth of memory, and the time to a live price.

    A simulated market trades `rate` times a second, in the same machine as the browser. What slow
    frames a page without content has there, in the same browser, is the baseline. Memory is
    JavaScript's heap after garbage collection, from the first to the second half of the time.

    Raises
    ------
    UsageError
        When there is no browser.
    """
    seconds = 60 * minutes
    program = shutil.which("chromium")
    if program is None:
        raise UsageError("bench dashboard: there is no chromium on PATH; install it")
    options = ("--memory", "--simulate", "--rate", str(rate))
    async with stack(*options) as (_, found), browser_tabs(program, 1) as (tab,):
        url = f"http://{found['gateway http']}/"
        await tab.resize(*_SIZE)
        await tab.run(_FRAMES)
        await asyncio.sleep(min(seconds / 4, _IDLE_S))
        idle = _slow_percent(await tab.run("globalThis.frames"))
        opened_s = median([await _seconds_to_live(tab, url) for _ in range(_OPENINGS)])
        await asyncio.sleep(_SETTLE_S)
        await tab.run(_FRAMES)
        heaps = [await _heap_bytes(tab)]
        for _ in range(2):
            await asyncio.sleep(seconds / 2)
            heaps.append(await _heap_bytes(tab))
        frames: list[float] = await tab.run("globalThis.frames")
        received = await tab.run("document.querySelector('#rate').dataset.received")
    return [
        Figure("dashboard_first_price", opened_s, "s", "lower"),
        Figure("dashboard_frames", len(frames) / seconds, "frames/s"),
        Figure(
            "dashboard_slow_frames",
            _slow_percent(frames),
            "% over 50 ms",
            "lower",
            "a page without content in the same browser",
            idle,
        ),
        Figure("dashboard_updates", float(received), "updates/s"),
        Figure("dashboard_heap", heaps[-1] / 1e6, "MB", "lower"),
        Figure("dashboard_heap_growth", (heaps[2] - heaps[1]) / 1e6, "MB", "lower"),
    ]


def _slow_percent(frames_ms: Sequence[float]) -> float:
    """Return the share of frames that took too long."""
    return 100 * sum(ms > _SLOW_MS for ms in frames_ms) / len(frames_ms)


async def _seconds_to_live(tab: Tab, url: str) -> float:
    """Return the time from opening the page until a price of it is live."""
    begun_s = time.perf_counter()
    await tab.open(url)
    await tab.until(_LIVE)
    return time.perf_counter() - begun_s


async def _heap_bytes(tab: Tab) -> int:
    await tab.send("HeapProfiler.collectGarbage")
    heap: dict[str, Any] = await tab.send("Runtime.getHeapUsage")
    return int(heap["usedSize"])
