"""The TCP ingest server: frames from many clients in, checked ticks to the bus out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mdtool.adapters.bus import open_bus
from mdtool.adapters.bus.port import Bus
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.local_market import LocalMarket
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import Started, until_stopped
from mdtool.core.tcp import Listener, listen
from mdtool.core.tls import ServerTls, server_tls
from mdtool.core.units import ANY_PRICE
from mdtool.services.client import Admission
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.connection import Connection, Connections
from mdtool.services.ingest.intake import Intake
from mdtool.services.limits import Limits
from mdtool.services.metrics import metrics_served
from mdtool.services.proxied import unwrap
from mdtool.services.security import Security
from mdtool.services.usage import keeping_current
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import encode_frame
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

READ_BYTES: Final = 1 << 20
SETTLE_S: Final = 2.0
"""How long a stop waits for commits."""
CLOSE_S: Final = 1.0
"""How long it then waits for clients to read their last reply."""


class IngestServer:
    """Listens for clients that send Tick frames.

    Parameters
    ----------
    config : IngestConfig
        Its settings.
    local : LocalMarket, optional
        The market of an aggregator in this process, which gets the ticks.

    Raises
    ------
    UsageError
        When the aggregator's address, or the bus's URL, is not valid.
    """

    name = "serve-tcp"

    def __init__(self, config: IngestConfig, local: LocalMarket | None = None) -> None:
        self._config = config
        self._local = local
        self._is_stopping = False
        self._intake: Intake | None = None
        parse_address(config.aggregator)
        if config.bus:
            KafkaAddress.parse(config.bus)

    async def run(self, started: Started) -> None:
        """Serve until cancelled; then drain, stop reading, and wait until all taken is committed.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or Kafka rejects it; while Kafka is unavailable,
            it is waited for.
        PeerError
            When what was taken can never be committed; or is not when the server stops, and its
            clients cannot send it again.
        """
        security = Security.load(self.name, self._config.host, self._config.auth)
        tls = server_tls(self.name)
        self._connections = Connections(Admission(Limits(), security))
        _warm_up()
        symbols = SymbolIndex(self._config.max_symbols)
        url = self._config.bus or self._config.aggregator
        async with (
            metrics_served(
                self._config.metrics_port,
                self._measures,
                is_ready=lambda: self._intake is not None and not self._is_stopping,
            ) as metrics,
            open_bus(url, symbols.symbols, self._local, self._config.aggregator_socket) as bus,
            keeping_current(self._connections.admission),
            asyncio.TaskGroup() as tasks,
        ):
            self._intake = intake = Intake(bus, self._config.max_uncommitted)
            server = await self._listen(intake, symbols, tasks, tls)
            try:
                started({"tcp": server.address, **metrics})
                await until_stopped(self.name, self._drain)
            finally:
                server.close()
                await self._stop(intake, bus)

    def _measures(self) -> Iterator[Metric]:
        from mdtool.services import families

        intake = self._intake
        if intake is not None:
            yield families.counter("mdtool_frames_taken", intake.taken)
            yield families.counter("mdtool_frames_committed", intake.committed)
            yield families.gauge("mdtool_uncommitted_ticks", intake.uncommitted)
        yield from families.clients(self._connections.admission)

    async def _drain(self, duration_s: float) -> None:
        self._is_stopping = True
        await asyncio.sleep(duration_s)

    async def _listen(
        self,
        intake: Intake,
        symbols: SymbolIndex,
        tasks: asyncio.TaskGroup,
        tls: ServerTls | None,
    ) -> Listener:
        buffer = memoryview(bytearray(READ_BYTES))

        def connect() -> Connection:
            decoder = TickDecoder(
                symbols,
                any_price=self._config.prices == ANY_PRICE,
            )
            return Connection(intake, decoder, buffer, tasks, self._connections)

        config = self._config
        return await listen(
            connect, config.host, config.port, tls=tls, unwrap=unwrap(config.proxy_protocol)
        )

    async def _stop(self, intake: Intake, bus: Bus) -> None:
        for connection in self._connections:
            connection.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await intake.settled()
        for connection in self._connections:
            connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._connections.gone()
        for connection in self._connections:
            connection.abort()
        if not intake.shared.is_settled:
            uncommitted = intake.shared.taken - intake.shared.committed
            raise PeerError(
                f"stopped with {uncommitted} ticks taken that {bus.peer} has not committed"
            )
        if intake.uncommitted:
            log.warning(
                "stopped with %d ticks taken that %s has not committed; their clients will send "
                "them again",
                intake.uncommitted,
                bus.peer,
            )


def _warm_up() -> None:
    """Compile the decoder's kernels before anyone waits for them."""
    tick = tick_pb2.Tick(symbol="A", price=1.0, volume=1, exchange_timestamp=time.time_ns())
    TickDecoder(SymbolIndex(1)).feed(encode_frame(tick.SerializeToString()), time.time_ns())
