"""An ingest server before an aggregator that keeps a ledger."""

from __future__ import annotations

import pytest

from mdtool.core.addresses import parse_address
from tests.reference.aggregator import PlainAggregator
from tests.reference.ledger import Ledger
from tests.support.ingest_servers import Client, serving
from tests.support.waiting import WITHIN_S


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
async def aggregator(ledger):
    plain = PlainAggregator(ledger)
    async with plain.serving():
        yield plain


@pytest.fixture
async def address(aggregator):
    async with serving(aggregator.address) as address:
        yield parse_address(address)


@pytest.fixture(autouse=True)
def _time_to_settle(monkeypatch):
    """Let a stop wait for commits for as long as a machine takes that has enough else to do."""
    monkeypatch.setattr("mdtool.services.ingest.server.SETTLE_S", WITHIN_S)


@pytest.fixture(autouse=True)
async def no_client_stays_open():
    yield
    await Client.close_all()
