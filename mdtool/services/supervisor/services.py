"""The services of one process, made from their settings, and joined in memory."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mdtool.adapters.dbn_files import Recording
from mdtool.adapters.local_market import LocalMarket
from mdtool.adapters.tick_source import TickSource
from mdtool.adapters.vwap_feed import LocalVwaps
from mdtool.core import config as settings
from mdtool.core.addresses import dial_address, dialled
from mdtool.core.lifecycle import Service, Started, stop_within_s
from mdtool.core.units import ANY_PRICE
from mdtool.engine.simulate_defaults import SEED, SYMBOLS
from mdtool.services.aggregator.server import Aggregator
from mdtool.services.book.server import BookReceiver
from mdtool.services.gateway.server import Gateway
from mdtool.services.ingest.server import IngestServer
from mdtool.services.live_gateway.server import LiveGateway
from mdtool.services.replay.runs import Pace
from mdtool.services.replay.server import ReplaySender
from mdtool.services.send.config import SendConfig
from mdtool.services.send.quotes import QuotePort
from mdtool.services.send.sender import Sender
from mdtool.services.send.ticks import (
    content_stream_id,
    live_ticks,
    open_ticks,
    report_left_out,
    simulate_ticks,
)
from mdtool.services.supervisor.one_process import Part
from mdtool.services.supervisor.programs import STOP_SHARE_OF_SOURCE, drains_s, stop_shares
from mdtool.services.supervisor.topology import LIVE, SERVICES, Topology
from mdtool.services.vwap.server import VwapFeed

log = logging.getLogger(__name__)


def services(topology: Topology) -> list[Part]:
    """Return the services of a topology, in the order in which they start.

    Services that do not run here are reached as their settings say.
    """
    within_s, shares = stop_within_s(), stop_shares(topology)
    makers = _Makers(topology).by_name()
    found = [
        Part(name, makers[name], stop_s=within_s * shares[name], drain_s=drains_s(name))
        for name in topology.order
    ]
    if topology.source is not None:
        found.append(
            Part(
                topology.source,
                lambda: _Source(topology),
                is_source=True,
                stop_s=within_s * STOP_SHARE_OF_SOURCE,
                first_tick_s=topology.first_tick_s,
            )
        )
    return found


class _Makers:
    """Makes services that share what they offer each other."""

    def __init__(self, topology: Topology) -> None:
        self._wiring = topology
        self._market: LocalMarket | None = None
        self._vwaps: LocalVwaps | None = None
        if "aggregate" in topology.names:
            self._market = LocalMarket(dial_address(*topology.where["aggregate"]))
        if "vwap" in topology.names:
            self._vwaps = LocalVwaps(dial_address(*topology.where["vwap"]))

    def by_name(self) -> Mapping[str, Callable[[], Service]]:
        """Return what makes each service."""
        config, market, vwaps = self._config, self._market, self._vwaps
        return {
            "replay-dbn": self._sender,
            "book": lambda: BookReceiver(config("book")),
            LIVE: self._live,
            "aggregate": lambda: Aggregator(config("aggregate"), market),
            "vwap": lambda: VwapFeed(config("vwap"), market, vwaps),
            "gateway": lambda: Gateway(config("gateway"), market, vwaps),
            "serve-tcp": lambda: IngestServer(config("serve-tcp"), market),
        }

    def _config(self, name: str) -> Any:
        given = {**self._wiring.addresses(name), **self._wiring.storage(name)}
        return settings.load(SERVICES[name], name, given)

    def _sender(self) -> Service:
        assert self._wiring.config.book is not None
        recording = Recording((self._wiring.config.book,))
        return ReplaySender(self._config("replay-dbn"), recording, Pace(self._wiring.book_speed))

    def _live(self) -> Service:
        assert self._wiring.config.live is not None
        config = dataclasses.replace(self._config(LIVE), speed=self._wiring.live_speed)
        return LiveGateway(config, (self._wiring.config.live,))


class _Source:
    """Sends simulated, replayed or live trades to the ingest server, as any client does."""

    def __init__(self, topology: Topology) -> None:
        self.name = topology.source or ""
        self._wiring = topology

    async def run(self, started: Started) -> None:
        """Send until the source ends."""
        config = await asyncio.to_thread(self._config)
        quotes = QuotePort(config.quotes_at) if config.quotes_at else None
        # A live source may be waited for.
        opened = await asyncio.to_thread(self._ticks, config, quotes)
        with contextlib.closing(opened) as ticks:
            is_of_now = self._wiring.config.simulate
            sender = Sender(config, ticks, is_of_now=is_of_now, quotes=quotes)
            try:
                await sender.run(started)
            finally:
                report_left_out(ticks, any_price=config.prices == ANY_PRICE)
            hint = "; --again sends them again" if sender.is_known else ""
            log.info("%s%s", sender.outcome, hint)

    def _config(self) -> SendConfig:
        host, port = self._wiring.where["serve-tcp"]
        given: dict[str, object] = {"host": dialled(host), "port": port, "speed": 1.0}
        given["quotes_at"] = self._wiring.quotes_at
        if self._wiring.config.ingest is not None:
            given |= {"speed": 0.0, "prices": self._wiring.replayed_prices}
        elif (path := self._wiring.config.replay) is not None:
            prices = self._wiring.replayed_prices
            given |= {"speed": self._wiring.replay_speed, "prices": prices}
            if not self._wiring.config.again:
                given["stream_id"] = content_stream_id([path], any_price=prices == ANY_PRICE)
        config = settings.load(SendConfig, "send", given)
        # The server runs in this process: on a busy machine it is waited for, as after a restart.
        patience_s = max(config.connect_timeout_s, config.reconnect_timeout_s)
        return dataclasses.replace(config, connect_timeout_s=patience_s)

    def _ticks(self, config: SendConfig, quotes: QuotePort | None) -> TickSource:
        serve = self._wiring.config
        any_price = config.prices == ANY_PRICE
        if serve.ingest is not None:
            symbols = self._wiring.symbols
            return live_ticks(serve.ingest, symbols, any_price=any_price, quotes=quotes)
        if serve.replay is None:
            return simulate_ticks(SYMBOLS, SEED, serve.rate, quotes)
        return open_ticks([serve.replay], any_price=any_price, quotes=quotes)
