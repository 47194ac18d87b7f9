"""Snapshots of many states are written in parts, so that other clients get theirs."""

from __future__ import annotations

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


def test_a_short_snapshot_is_written_at_once():
    snapshots, outlet = Snapshots(), Outlet()
    snapshots.begin(outlet, outlet.states(range(AT_ONCE - 1)))
    assert outlet.written == [*range(AT_ONCE - 1)]
    snapshots.begin(outlet, ())
    assert len(outlet.written) == AT_ONCE - 1


def test_long_snapshots_are_written_in_order_a_part_at_a_time():
    snapshots, outlets = Snapshots(), [Outlet(), Outlet(), Outlet()]
    numbers = range(2 * AT_ONCE + 1)
    for outlet in outlets:
        snapshots.begin(outlet, outlet.states(numbers))
    written = [3 * AT_ONCE]
    has_more = True
    while has_more:
        has_more = snapshots.resume()
        written.append(sum(len(outlet.written) for outlet in outlets))
        assert written[-1] - written[-2] <= AT_ONCE
    assert [outlet.written for outlet in outlets] == [[*numbers]] * 3


def test_a_state_is_read_when_it_is_written():
    snapshots, outlet, latest = Snapshots(), Outlet(), [0] * (AT_ONCE + 1)
    snapshots.begin(outlet, ((outlet, latest[i], b"") for i in range(len(latest))))
    latest[-1] = 7
    assert not snapshots.resume()
    assert len(outlet.written) == len(latest)
    assert outlet.written[-1] == 7


def test_a_snapshot_that_ends_early_delays_no_other():
    snapshots, gone, other = Snapshots(), Outlet(), Outlet()
    numbers = range(3 * AT_ONCE)
    end = snapshots.begin(gone, gone.states(numbers))
    snapshots.begin(other, other.states(numbers))
    end()
    while snapshots.resume():
        pass
    assert other.written == [*numbers]
    assert gone.written == [*range(AT_ONCE)]
