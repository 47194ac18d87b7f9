"""Rounds of requests, however long a server takes for them."""

from __future__ import annotations

import pytest

from mdtool.bench import http_load
from mdtool.bench.http_load import against_another
from mdtool.bench.processes import server
from mdtool.bench.rest import load_of
from mdtool.core.errors import PeerError


@pytest.fixture
async def address():
    async with server("mdtool.bench.bare_http", '"all"') as address:
        yield address


async def test_a_round_lasts_until_something_is_answered(address):
    load = load_of(address, b'"all"')
    figure = await against_another("rate", load, "itself", load, rounds=1, round_s=0.0)
    assert min(figure.value, figure.baseline_value, figure.ratio) > 0


async def test_other_answers_are_given_up(address, monkeypatch):
    monkeypatch.setattr(http_load, "_PATIENCE_S", 0.0)
    load = load_of(address, b'"nothing"')
    with pytest.raises(PeerError, match=r"does not answer GET .* as it did"):
        await against_another("rate", load, "itself", load, rounds=1, round_s=0.0)
