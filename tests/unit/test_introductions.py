"""What is there already is told to new followers in turns, which others have too."""

from __future__ import annotations

import asyncio

from mdtool.services.gateway.introductions import AT_ONCE, Introductions


class Follower:
    """Keeps the numbers of the states that it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def send_all(self, updates):
        assert len(updates) <= AT_ONCE
        self.told += [number for _, number, _ in updates]

    def states(self, numbers):
        return ((self, number, b"") for number in numbers)


async def turns(n: int) -> None:
    """Let everybody have a turn so many times."""
    for _ in range(n):
        await asyncio.sleep(0)


async def test_a_few_are_told_at_once():
    introductions, follower = Introductions(), Follower()
    introductions.begin(follower, follower.states(range(AT_ONCE - 1)))
    assert follower.told == [*range(AT_ONCE - 1)]
    introductions.begin(follower, ())
    assert len(follower.told) == AT_ONCE - 1


async def test_many_are_told_in_order_one_followers_a_turn():
    introductions, followers = Introductions(), [Follower(), Follower(), Follower()]
    numbers = range(2 * AT_ONCE + 1)
    for follower in followers:
        introductions.begin(follower, follower.states(numbers))
    told = [3 * AT_ONCE]
    while told[-1] < 3 * len(numbers):
        await asyncio.sleep(0)
        told.append(sum(len(follower.told) for follower in followers))
        assert told[-1] - told[-2] <= AT_ONCE
    assert [follower.told for follower in followers] == [[*numbers]] * 3


async def test_a_state_is_read_off_when_its_turn_comes():
    introductions, follower, latest = Introductions(), Follower(), [0] * (AT_ONCE + 1)
    introductions.begin(follower, ((follower, latest[i], b"") for i in range(len(latest))))
    latest[-1] = 7
    await turns(2)
    assert len(follower.told) == len(latest)
    assert follower.told[-1] == 7


async def test_who_leaves_is_told_no_more_and_holds_up_nobody():
    introductions, gone, there = Introductions(), Follower(), Follower()
    numbers = range(3 * AT_ONCE)
    end = introductions.begin(gone, gone.states(numbers))
    introductions.begin(there, there.states(numbers))
    end()
    await turns(6)
    assert there.told == [*numbers]
    assert gone.told == [*range(AT_ONCE)]
