"""A gateway in front of a market in which AAPL has traded once."""

from __future__ import annotations

import pytest

from tests.e2e.gateways import connected, gateway_of
from tests.reference.market_source import MarketSource


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
