"""Which services run together: their addresses, who connects to whom, and where they store."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.live import SOURCES
from mdtool.adapters.live.config import SourceConfig
from mdtool.core import config as settings
from mdtool.core.addresses import dial_address
from mdtool.core.errors import InputError, UsageError
from mdtool.core.tcp import ReservedPort
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.live_gateway.config import FILES_SPEED, LiveGatewayConfig
from mdtool.services.replay.config import SenderConfig
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.storage import chosen_store
from mdtool.services.vwap.config import VwapConfig

LIVE: Final = "live-gateway"
"""The service that runs only with --live, and feeds no other."""
SERVICES: Final[Mapping[str, type[Any]]] = {
    "replay-dbn": SenderConfig,
    "book": ReceiverConfig,
    LIVE: LiveGatewayConfig,
    "aggregate": AggregatorConfig,
    "vwap": VwapConfig,
    "gateway": GatewayConfig,
    "serve-tcp": IngestConfig,
}
"""The settings of each service. A service follows those that it connects to: it stops first."""
BOOK_SERVICES: Final = frozenset({"book", "replay-dbn"})
"""The services that run only with --book, or when they are named."""
STORE: Final = "store"
"""The program that, with a bus, stores what is on it, and listens nowhere."""
DATA_PORT: Final = "replay-dbn data"
"""The endpoint on which replay-dbn streams, besides its HTTP."""
CONTROL_PORT: Final = "live-gateway control"
"""The endpoint of the live gateway's control API, besides its sessions."""
_PEERS: Final[Mapping[str, Mapping[str, str]]] = {
    "gateway": {
        "vwap": "vwap",
        "aggregator": "aggregate",
        "sender": "replay-dbn",
        "receiver": "book",
    },
    "vwap": {"aggregator": "aggregate"},
    "serve-tcp": {"aggregator": "aggregate"},
    "book": {"sender": DATA_PORT},
}
"""The settings by which a service is given the endpoints of others, if these run."""
SOURCE_QUOTES: Final = "source quotes"
"""The endpoint on which the source of ticks streams quotes."""
_LOOPBACK: Final = "127.0.0.1"
_STORING: Final = ("gateway", "vwap", "aggregate", STORE)
"""The services that use the store."""
_FIRST_TICK_S: Final = 2.0
_COMPILE_S: Final = 60.0
"""A simulated market trades at once, except that its first use compiles kernels."""
SCALED: Final = "aggregate"
"""The service of which there may be several processes."""
_MAX_SCALE: Final = 64


@dataclass(frozen=True, slots=True)
class Topology:
    """The services of one `serve all`, as its settings connect them.

    Attributes
    ----------
    config : ServeConfig
    names : collection of str
        The services that run.
    where : mapping
        The host and the port of each endpoint.
    store : str
        The URL of the store, empty for none.
    n_aggregators : int
        How many processes aggregate.
    socket : str
        The aggregator's Unix socket, empty for none.
    """

    config: ServeConfig
    names: Collection[str]
    where: Mapping[str, tuple[str, int]]
    store: str
    n_aggregators: int
    socket: str = ""

    @property
    def is_one_process(self) -> bool:
        """Whether all services run in one process."""
        config = self.config
        return not (config.processes or config.bus or config.scale)

    @property
    def source(self) -> str | None:
        """The name of the source of ticks, if there is one."""
        if self.config.simulate:
            return "simulate"
        if self.config.ingest is not None:
            return "ingest"
        return None if self.config.replay is None else "replay"

    @property
    def order(self) -> list[str]:
        """The services that run, in the order in which they start."""
        return [name for name in SERVICES if name in self.names]

    @property
    def runs_store(self) -> bool:
        """Whether a program stores what is on the bus."""
        return STORE in self.names and bool(self.store)

    @property
    def symbols(self) -> list[str]:
        """The symbols of a live source."""
        return _names(self.config.symbols)

    @property
    def replayed_prices(self) -> str:
        """Which prices of a replay are sent: those that serve-tcp accepts."""
        return str(settings.load(IngestConfig, "serve-tcp", {}).prices)

    @property
    def first_tick_s(self) -> float:
        """How long to wait for the source's first tick before all are reported as ready."""
        is_compiled = self.config.simulate and self.config.rate >= 1
        return _COMPILE_S if is_compiled else _FIRST_TICK_S

    @property
    def quotes_at(self) -> str:
        """Where the source streams quotes, empty for nowhere."""
        at = self.where.get(SOURCE_QUOTES)
        return "" if at is None else dial_address(*at)

    @property
    def replay_speed(self) -> float:
        """The speed of a replay of trades."""
        return 1.0 if self.config.speed is None else self.config.speed

    @property
    def live_speed(self) -> float:
        """The speed of the live gateway."""
        own = settings.load(LiveGatewayConfig, LIVE, {}).speed
        given = (each for each in (self.config.speed, own) if each is not None)
        return next(given, FILES_SPEED)

    @property
    def book_speed(self) -> float:
        """The speed of the replay of a book."""
        return 0.0 if self.config.speed is None else self.config.speed

    def ports(self) -> dict[str, int]:
        """Return the ports of the services that run, as settings of the supervisor."""
        ports = {f"{name.replace('-', '_')}_port": self.where[name][1] for name in self.order}
        if "replay-dbn" in self.names:
            ports["replay_dbn_data_port"] = self.where[DATA_PORT][1]
        if LIVE in self.names:
            ports["live_gateway_control_port"] = self.where[CONTROL_PORT][1]
        return ports

    def addresses(self, name: str) -> dict[str, str | int]:
        """Return the settings of a service that are addresses: its own, and those of others."""
        config = self.config
        host, port = self.where[name]
        given: dict[str, str | int] = {"host": host, "port": port}
        if config.auth is not None:
            given["auth"] = config.auth
        if name == "replay-dbn":
            given["data_port"] = self.where[DATA_PORT][1]
        if name == LIVE:
            given["control_port"] = self.where[CONTROL_PORT][1]
        for setting, endpoint in _PEERS.get(name, {}).items():
            is_on_bus = config.bus and endpoint == "aggregate"
            if _service_of(endpoint) in self.names and not is_on_bus:
                given[setting] = dial_address(*self.where[endpoint])
        if name == "gateway" and (sources := self._quote_sources()):
            given["quotes_from"] = ",".join(sources)
        return given

    def _quote_sources(self) -> list[str]:
        """Return where quotes are streamed: those of an order book, and those beside ticks."""
        at = [self.where[DATA_PORT]] if "replay-dbn" in self.names else []
        at += [self.where[SOURCE_QUOTES]] if SOURCE_QUOTES in self.where else []
        return [dial_address(*endpoint) for endpoint in at]

    def sockets(self, name: str) -> dict[str, str]:
        """Return the settings of a service that are Unix sockets."""
        if not self.socket:
            return {}
        if name == "aggregate":
            return {"socket": self.socket}
        has_aggregator = "aggregator" in _PEERS.get(name, {})
        return {"aggregator_socket": self.socket} if has_aggregator else {}

    def storage(self, name: str) -> dict[str, str]:
        """Return the settings of a service that are URLs, which may contain a password."""
        given = {}
        if name in _STORING:
            is_stored_by_another = self.config.bus and name == "aggregate"
            given["store"] = "" if is_stored_by_another else self.store
        if self.config.bus and name not in BOOK_SERVICES:
            given["bus"] = self.config.bus
        return given


def stored_in(topology: Topology) -> str:
    """Return where services store their data, for people, without secrets."""
    from mdtool.adapters.stores import open_history  # imports numpy

    places = []
    for name in [*topology.order, *([STORE] if topology.runs_store else [])]:
        urls = topology.storage(name)
        if url := urls.get("bus"):
            places.append(str(KafkaAddress.parse(url)))
        if url := urls.get("store"):
            places.append(open_history(url).address)
    if not places:
        return "nothing is stored without --data-dir or --store"
    return f"trades and state are stored in {' and '.join(dict.fromkeys(places))}"


@contextlib.contextmanager
def prepared(config: ServeConfig) -> Iterator[Topology]:
    """Yield the services of `config`.

    Each port 0 is replaced by a free port, which is reserved until the context ends, so that each
    service can be given the addresses of the others.

    Parameters
    ----------
    config : ServeConfig
        The supervisor's settings; those of each service are loaded besides.

    Raises
    ------
    UsageError
        When the settings contradict each other.
    InputError
        When the file to replay does not exist.
    StartupError
        When a host is not an address of this machine, or the folder of the store cannot be created.
    """
    names = chosen(config)
    _check_source(config, names)
    _check_book(config, names)
    _check_live(config, names)
    n_aggregators = _scale(config)
    store = chosen_store(config) if not set(_STORING).isdisjoint(names) else ""
    with contextlib.ExitStack() as reserved:
        where = {}
        for name, (host, port) in endpoints(config).items():
            if _service_of(name) in names and port == 0:
                holder = reserved.enter_context(ReservedPort(host))
                where[name] = (host, holder.port)
            else:
                where[name] = (host, port)
        if "gateway" in names and _sources(config):
            holder = reserved.enter_context(ReservedPort(_LOOPBACK))
            where[SOURCE_QUOTES] = (_LOOPBACK, holder.port)
        topology = Topology(config, names, where, store, n_aggregators)
        if not topology.is_one_process and not config.bus and "aggregate" in names:
            folder = reserved.enter_context(tempfile.TemporaryDirectory(prefix="mdtool-"))
            topology = replace(topology, socket=str(Path(folder) / "aggregate"))
        yield topology


def chosen(config: ServeConfig) -> Collection[str]:
    """Return the services that `--only` names; by default all, book services with `--book` only.

    Raises
    ------
    UsageError
        When a service does not exist.
    """
    names = {name.strip() for name in config.only.split(",")} - {""}
    existing = [*SERVICES, STORE] if config.bus else list(SERVICES)
    if not names:
        left_out = {LIVE} if config.live is None else set()
        return set(existing) - left_out - (BOOK_SERVICES if config.book is None else frozenset())
    for name in sorted(names - set(existing)):
        raise UsageError(f"--only {name}: no such service{settings.did_you_mean(name, existing)}")
    return names


def endpoints(config: ServeConfig) -> dict[str, tuple[str, int]]:
    """Return the host and the port of each service by its settings, and of its second port."""
    found = {}
    for name, cls in SERVICES.items():
        prefix = name.replace("-", "_") + "_"
        given = {key.name: getattr(config, prefix + key.name, None) for key in fields(cls)}
        loaded = settings.load(cls, name, given)
        found[name] = (loaded.host, loaded.port)
        if isinstance(loaded, SenderConfig):
            found[DATA_PORT] = (loaded.host, loaded.data_port)
        if isinstance(loaded, LiveGatewayConfig):
            found[CONTROL_PORT] = (_LOOPBACK, loaded.port_of_control)
    return found


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _service_of(endpoint: str) -> str:
    return endpoint.partition(" ")[0]


def _check_source(config: ServeConfig, names: Collection[str]) -> None:
    if config.again and config.replay is None:
        raise UsageError("--again: ingests a file again; name it with --replay FILE")
    if config.symbols and config.ingest is None:
        raise UsageError("--symbols: names those of a live source; name it with --ingest SOURCE")
    sources = _sources(config)
    if not sources:
        return
    if len(sources) > 1:
        raise UsageError(f"{' and '.join(sources)}: choose one")
    if "serve-tcp" not in names:
        raise UsageError(f"{sources[0]} feeds serve-tcp, which --only leaves out")
    if config.ingest is not None:
        if config.ingest not in SOURCES:
            near = settings.did_you_mean(config.ingest, SOURCES)
            raise UsageError(f"--ingest {config.ingest}: no such source{near}")
        if not config.symbols:
            raise UsageError("--ingest: name its symbols with --symbols A,B")
        from mdtool.adapters.live.records import check_live

        loaded = settings.load(SourceConfig, "ingest", {})
        check_live(config.ingest, _names(config.symbols), loaded)
    if config.replay is not None and not Path(config.replay).is_file():
        raise InputError(f"{config.replay}: no such file")


def _sources(config: ServeConfig) -> list[str]:
    """Return the options that name a source."""
    given = {
        "--simulate": config.simulate,
        "--replay": config.replay is not None,
        "--ingest": config.ingest is not None,
    }
    return [option for option, is_given in given.items() if is_given]


def _check_book(config: ServeConfig, names: Collection[str]) -> None:
    if config.book is None:
        if "replay-dbn" in names:
            raise UsageError("--only replay-dbn: nothing to replay; name a file with --book FILE")
        return
    if "replay-dbn" not in names:
        raise UsageError("--book is replayed by replay-dbn, which --only leaves out")
    if not Path(config.book).is_file():
        raise InputError(f"{config.book}: no such file")


def _check_live(config: ServeConfig, names: Collection[str]) -> None:
    if config.live is None:
        if LIVE in names:
            raise UsageError(f"--only {LIVE}: nothing to play; name a file with --live FILE")
        return
    if LIVE not in names:
        raise UsageError(f"--live is played by {LIVE}, which --only leaves out")
    if not Path(config.live).exists():
        raise InputError(f"{config.live}: no such file")


def _scale(config: ServeConfig) -> int:
    """Return how many aggregation services to run."""
    if config.bus:
        KafkaAddress.parse(config.bus)
    if not config.scale:
        return 1
    if not config.bus:
        raise UsageError("--scale requires --bus, on which the processes share their work")
    name, _, count = config.scale.partition("=")
    is_count = count.isascii() and count.isdigit() and 1 <= int(count) <= _MAX_SCALE
    if name.strip() != SCALED or not is_count:
        raise UsageError(f"--scale {config.scale}: give {SCALED}=N, N from 1 to {_MAX_SCALE}")
    return int(count)
