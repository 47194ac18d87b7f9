"""What every service says of an address that it cannot listen on."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdtool.adapters.dbn_files import Recording
from mdtool.core.errors import StartupError
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.book.server import BookReceiver
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.server import IngestServer
from mdtool.services.replay.config import SenderConfig
from mdtool.services.replay.runs import Pace
from mdtool.services.replay.server import ReplaySender
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed

SAMPLE = Path(__file__).parents[2] / "sample_data" / "trades.dbn.zst"
ADDRESS = {"host": "mdtool..example", "port": 0}
SERVICES = {
    "aggregate": lambda: Aggregator(AggregatorConfig(**ADDRESS)),
    "book": lambda: BookReceiver(ReceiverConfig(**ADDRESS)),
    "gateway": lambda: Gateway(GatewayConfig(**ADDRESS)),
    "replay-dbn": lambda: ReplaySender(
        SenderConfig(**ADDRESS, data_port=0), Recording((str(SAMPLE),)), Pace(0)
    ),
    "serve-tcp": lambda: IngestServer(IngestConfig(**ADDRESS)),
    "vwap": lambda: VwapFeed(VwapConfig(**ADDRESS)),
}


async def run(service):
    """Run a service; raise what a group of tasks has raised as what it is."""
    try:
        await service.run(lambda _: None)
    except* StartupError as group:
        raise group.exceptions[0] from None


@pytest.mark.parametrize("name", SERVICES)
async def test_a_host_that_is_not_a_valid_name_is_rejected(name):
    said = r"^cannot listen on port 0 of mdtool\.\.example: not a valid host name$"
    with pytest.raises(StartupError, match=said):
        await run(SERVICES[name]())
