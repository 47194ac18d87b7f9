"""Rounds of requests, however long a server takes for them."""

from __future__ import annotations

import pytest

from mdtool.bench import baselines, requests
from mdtool.bench.processes import server
from mdtool.bench.requests import compare, rest_load
from mdtool.core.errors import PeerError


@pytest.fixture
async def address():
    async with server(baselines.MODULE, "handler", '"all"') as address:
        yield address


async def test_a_round_lasts_until_something_is_answered(address):
    load = rest_load(address, b'"all"')
    figure = await compare("rate", load, "itself", load, rounds=1, round_s=0.0)
    assert min(figure.value, figure.baseline_value, figure.ratio) > 0


async def test_other_answers_are_given_up(address, monkeypatch):
    monkeypatch.setattr(requests, "_PATIENCE_S", 0.0)
    load = rest_load(address, b'"nothing"')
    with pytest.raises(PeerError, match=r"does not answer GET .* as it did"):
        await compare("rate", load, "itself", load, rounds=1, round_s=0.0)
