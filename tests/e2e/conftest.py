"""A gateway in front of a market in which AAPL has traded once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mdtool.services.gateway import limits
from tests.reference.market_source import MarketSource
from tests.support.gateways import connected, gateway_of
from tests.support.kernels import compile_kernels

HERE = Path(__file__).parent


def pytest_collection_finish(session):
    """Have nothing compiled while a test looks at the time, or at what a command says."""
    is_needed = any(item.path.is_relative_to(HERE) for item in session.items)
    if is_needed and not session.config.option.collectonly:
        compile_kernels()


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
