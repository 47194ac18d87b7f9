"""A gateway in front of a market that traded."""

from __future__ import annotations

import pytest

from tests.reference.market_source import MarketSource
from tests.support.gateways import connected, gateway_of


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        source.trade("AAPL", 188.5, 600)
        yield source


@pytest.fixture
async def client(source):
    async with gateway_of(source.address) as client:
        await connected(client)
        yield client
