"""Runs on their way to a market: when they are handed on, and what is repeated."""

from __future__ import annotations

import asyncio

import numpy as np

from mdtool.adapters.bus.pending import PendingRuns
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, Trades


def frames(count):
    ones = np.ones(count, np.int64)
    return Frames.of(Trades(np.zeros(count, np.uint32), ones, ones, ones, ones))


def spans(runs):
    return [(run.first_sequence, run.frames.count) for run in runs]


async def test_what_waits_of_a_stream_is_one_batch():
    pending = PendingRuns(SymbolTable(["A"]))
    for sequence in range(3):
        pending.add("s", sequence, frames(1))
    assert spans([await anext(pending.batches())]) == [(0, 3)]


async def test_after_a_small_batch_the_next_is_collected_and_after_a_large_one_not():
    for size, expected in [(1, (1, 2)), (1_000, (1_000, 1))]:
        pending = PendingRuns(SymbolTable(["A"]))
        batches = pending.batches(collect_s=1.0)
        pending.add("s", 0, frames(size))
        await anext(batches)
        coming = asyncio.ensure_future(anext(batches))
        pending.add("s", size, frames(1))
        await asyncio.wait({coming}, timeout=0.01)
        pending.add("s", size + 1, frames(1))
        assert spans([await coming]) == [expected]


async def test_what_is_not_committed_is_sent_again_before_what_is_new():
    pending = PendingRuns(SymbolTable(["A"]))
    batches = pending.batches()
    for sequence in range(2):
        pending.add("s", sequence, frames(1))
        await anext(batches)
    pending.commit("s", 1)
    pending.add("s", 2, frames(1))
    pending.restart()
    assert spans([await anext(batches)]) == [(1, 2)]


async def test_a_stream_far_ahead_of_its_commits_waits_for_them_and_others_do_not():
    pending = PendingRuns(SymbolTable(["A"]))
    batches = pending.batches()
    n_sent = 0
    while True:
        pending.add("s", n_sent, frames(1))
        coming = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        if not coming.done():
            break
        n_sent += 1
        assert n_sent < 10_000
    pending.add("other", 0, frames(2))
    assert spans([await coming]) == [(0, 2)]
    pending.add("s", n_sent + 1, frames(1))
    coming = asyncio.ensure_future(anext(batches))
    pending.commit("s", 1)
    assert spans([await coming]) == [(n_sent, 2)]
