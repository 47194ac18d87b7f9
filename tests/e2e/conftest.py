"""A gateway in front of a market in which AAPL has traded once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mdtool.services.gateway import limits
from tests.e2e.gateways import connected, gateway_of
from tests.reference.market_source import MarketSource


@pytest.fixture
def no_refill(monkeypatch):
    """Give clients nothing back of what they may ask for, however long the test takes."""
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic_ns=lambda: 0))


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        yield source


@pytest.fixture
async def client(source):
    async with gateway_of(source.address) as client:
        await connected(client)
        yield client
