"""Snapshots of many states are written in turns, so that other clients get theirs."""

from __future__ import annotations

import asyncio

from mdtool.services.gateway.snapshots import AT_ONCE, Snapshots


class Outlet:
    """Keeps the numbers of the states that are written to it."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def send_all(self, updates):
        assert len(updates) <= AT_ONCE
        self.written += [number for _, number, _ in updates]

    def states(self, numbers):
        return ((self, number, b"") for number in numbers)


async def turns(n: int) -> None:
    """Let the event loop turn so many times."""
    for _ in range(n):
        await asyncio.sleep(0)


async def test_a_short_snapshot_is_written_at_once():
    snapshots, outlet = Snapshots(), Outlet()
    snapshots.begin(outlet, outlet.states(range(AT_ONCE - 1)))
    assert outlet.written == [*range(AT_ONCE - 1)]
    snapshots.begin(outlet, ())
    assert len(outlet.written) == AT_ONCE - 1


async def test_long_snapshots_are_written_in_order_one_in_each_turn():
    snapshots, outlets = Snapshots(), [Outlet(), Outlet(), Outlet()]
    numbers = range(2 * AT_ONCE + 1)
    for outlet in outlets:
        snapshots.begin(outlet, outlet.states(numbers))
    written = [3 * AT_ONCE]
    while written[-1] < 3 * len(numbers):
        await asyncio.sleep(0)
        written.append(sum(len(outlet.written) for outlet in outlets))
        assert written[-1] - written[-2] <= AT_ONCE
    assert [outlet.written for outlet in outlets] == [[*numbers]] * 3


async def test_a_state_is_read_in_the_turn_that_writes_it():
    snapshots, outlet, latest = Snapshots(), Outlet(), [0] * (AT_ONCE + 1)
    snapshots.begin(outlet, ((outlet, latest[i], b"") for i in range(len(latest))))
    latest[-1] = 7
    await turns(2)
    assert len(outlet.written) == len(latest)
    assert outlet.written[-1] == 7


async def test_a_snapshot_that_ends_early_delays_no_other():
    snapshots, gone, other = Snapshots(), Outlet(), Outlet()
    numbers = range(3 * AT_ONCE)
    end = snapshots.begin(gone, gone.states(numbers))
    snapshots.begin(other, other.states(numbers))
    end()
    await turns(6)
    assert other.written == [*numbers]
    assert gone.written == [*range(AT_ONCE)]
