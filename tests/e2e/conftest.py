"""A gateway in front of a market in which AAPL has traded once, and files of a few trades."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.market_source import MarketSource
from tests.support.gateways import connected, gateway_of
from tests.support.kernels import compile_kernels
from tests.support.live_clients import three_trades

HERE = Path(__file__).parent


def pytest_collection_finish(session):
    """Compile kernels before tests that measure time or read a command's output."""
    is_needed = any(item.path.is_relative_to(HERE) for item in session.items)
    if is_needed and not session.config.option.collectonly:
        compile_kernels()


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


@pytest.fixture
def live_trades(tmp_path: Path) -> Path:
    """Two trades of AAPL, one of MSFT between them."""
    return three_trades(tmp_path)
