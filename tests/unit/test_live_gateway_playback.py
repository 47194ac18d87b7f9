"""What passes over the input of a live gateway make, for whom."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.inputs import inputs
from mdtool.services.live_gateway.playback import Needs, Pass, Playback
from tests.support.dbn_files import MAY_1, header, order, write
from tests.support.live_clients import BOTH_DAYS
from tests.support.waiting import bounded

TRADES = Needs(frozenset({"trades"}))
QUOTES = Needs(frozenset({"mbp-1"}))
DATASET = "XNAS.ITCH"


@pytest.fixture
def path(tmp_path):
    """A trade, and an order that makes a quote."""
    records = [order(1, MAY_1 + 1, "T", "A", 5, 1, 9), order(1, MAY_1 + 2, "A", "B", 5, 1, 9)]
    return write(tmp_path / "orders.dbn", header(BOTH_DAYS, "mbo"), *records)


@contextlib.asynccontextmanager
async def playing(path, **settings):
    """The playback of a file, whose passes end with the block."""
    config = LiveGatewayConfig(speed=0, **settings)
    played = await asyncio.to_thread(inputs, [str(path)], None)
    async with bounded(), asyncio.TaskGroup() as tasks:
        playback = Playback(played[DATASET], config, tasks)
        yield playback
        if playback.run is not None:
            playback.run.stop()


async def made_by(current: Pass) -> list[str]:
    """The schemas of all that a pass makes, before a session follows anything of it."""
    made, position = [], 0
    while position < await current.run.reached(position + 1):
        part = current.run.backlog.part(position)
        position += len(part.records)
        made += [each.schema for each in part.made]
    return sorted(made)


async def test_a_pass_makes_what_the_session_needs_that_begins_it(path):
    async with playing(path) as playback, playback.joined("one", TRADES) as current:
        assert await made_by(current) == ["trades"]


@pytest.mark.parametrize("at_end", ["hold", "loop"])
async def test_another_pass_makes_what_sessions_followed_that_are_still_there(path, at_end):
    async with playing(path, at_end=at_end) as playback, playback.joined("one", TRADES) as first:
        await made_by(first)
        async with playback.joined("two", QUOTES):
            await first.follow("two", QUOTES)
            if at_end == "hold":
                await playback.seek(MAY_1)
            second = await playback.after(first)
            assert await made_by(second) == ["mbp-1", "trades"]
        await playback.seek(MAY_1)
        third = await playback.after(second)
        assert await made_by(third) == ["trades"]
