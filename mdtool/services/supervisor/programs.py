"""The processes that a supervisor runs: their commands, addresses and environments."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core import config as settings
from mdtool.core.addresses import format_address
from mdtool.core.errors import InputError, UsageError
from mdtool.core.lifecycle import stop_within_s
from mdtool.core.tcp import ALL, ALL_IPV4, ReservedPort
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.replay.config import SenderConfig
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.storage import chosen_store
from mdtool.services.vwap.config import VwapConfig

SERVICES: Final[Mapping[str, type[Any]]] = {
    "replay-dbn": SenderConfig,
    "book": ReceiverConfig,
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
_PEERS: Final[Mapping[str, Mapping[str, str]]] = {
    "gateway": {
        "--vwap": "vwap",
        "--aggregator": "aggregate",
        "--sender": "replay-dbn",
        "--receiver": "book",
        "--quotes-from": DATA_PORT,
    },
    "vwap": {"--aggregator": "aggregate"},
    "serve-tcp": {"--aggregator": "aggregate"},
    "book": {"--sender": DATA_PORT},
}
"""The options with which a service is given the endpoints of others, if these run."""
_STORING: Final = ("gateway", "vwap", "aggregate")
"""The services that use the store."""
PYTHON: Final = (sys.executable, "-P", "-m", "mdtool")
"""The command of this same mdtool, whatever Python files are in the working folder."""

_STOP_SHARES: Final = {
    "gateway": 0.1,
    "vwap": 0.04,
    "aggregate": 0.1,
    "serve-tcp": 0.52,
    "book": 0.04,
    "replay-dbn": 0.04,
}
"""Shares of the time to stop. serve-tcp waits until what it accepted is committed."""
_STOP_SHARES_ON_BUS: Final = {**_STOP_SHARES, "serve-tcp": 0.44, STORE: 0.08}
"""With a bus, where the store program stops too."""
_STOP_SHARE_OF_SOURCE: Final = 0.14
_STOP_SHARE_OF_ALL: Final = 0.98
"""The share of all together; what is unused goes to those that stop first, and so to all."""
_FIRST_TICK_S: Final = 2.0
_COMPILE_S: Final = 60.0
"""A simulated market trades at once, except that its first use compiles kernels."""
_DIALLED: Final = {"": "127.0.0.1", ALL_IPV4: "127.0.0.1", ALL: "::1"}
_SCALED: Final = "aggregate"
_MAX_SCALE: Final = 64


@dataclass(frozen=True, slots=True)
class Program:
    """A process to keep running.

    Attributes
    ----------
    name : str
        The prefix of its lines.
    command : sequence of str
        The program and its arguments.
    is_source : bool
        Whether it is not started again when it ends by itself.
    group : str
        Consecutive programs of one group stop at the same time.
    after : str or None
        The program that must be ready before this one starts.
    stop_s : float
        How long it may take to stop, besides what those stopped before it did not use.
    first_tick_s : float
        How long to wait for a source's first tick before all are reported as ready.
    environment : mapping of str to str
        Variables in addition to the supervisor's.
    """

    name: str
    command: Sequence[str]
    is_source: bool = False
    group: str = ""
    after: str | None = None
    stop_s: float = 1.0
    first_tick_s: float = _FIRST_TICK_S
    environment: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def programs(config: ServeConfig, mdtool: Sequence[str] = PYTHON) -> Iterator[list[Program]]:
    """Yield the processes of `config`, in the order in which they start.

    Each port 0 is replaced by a free port, which is reserved until the context ends, so that each
    process can be given the addresses of the others.

    Parameters
    ----------
    config : ServeConfig
        The supervisor's settings; those of each service are loaded besides.
    mdtool : sequence of str
        The command that runs mdtool, with options that precede a subcommand.

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
    n_aggregators = _scale(config)
    store = chosen_store(config) if not {*_STORING, STORE}.isdisjoint(names) else ""
    with contextlib.ExitStack() as reserved:
        where = {}
        for name, (host, port) in endpoints(config).items():
            if _service_of(name) in names and port == 0:
                holder = reserved.enter_context(ReservedPort(host))
                where[name] = (host, holder.port)
            else:
                where[name] = (host, port)
        stack = _Stack(config, names, where, store, mdtool)
        running: list[Program] = []
        for name in SERVICES:
            if name == "serve-tcp" and STORE in names and store:
                running.append(stack.store_program())
            if name in names:
                running += stack.service(name, n_aggregators if name == _SCALED else 1)
        if config.simulate or config.replay is not None:
            running.append(stack.source())
        yield _with_time_to_stop(running, _STOP_SHARES_ON_BUS if config.bus else _STOP_SHARES)


def stored_in(running: Sequence[Program]) -> str:
    """Return where these programs store their data, for people, without secrets."""
    from mdtool.adapters.stores import open_history  # imports numpy

    places = []
    for program in running:
        if url := program.environment.get(settings.variable(program.group, "bus")):
            places.append(str(KafkaAddress.parse(url)))
        if url := program.environment.get(settings.variable(program.group, "store")):
            places.append(open_history(url).address)
    if not places:
        return "nothing is stored; --data-dir FOLDER or --store URL stores trades and state"
    return f"trades and state are stored in {' and '.join(dict.fromkeys(places))}"


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
        return set(existing) - (BOOK_SERVICES if config.book is None else frozenset())
    for name in sorted(names - set(existing)):
        raise UsageError(f"--only {name}: no such service; choose from {', '.join(existing)}")
    return names


def endpoints(config: ServeConfig) -> dict[str, tuple[str, int]]:
    """Return the host and the port of each service by its settings, and those of `DATA_PORT`."""
    found = {}
    for name, cls in SERVICES.items():
        prefix = name.replace("-", "_") + "_"
        given = {key.name: getattr(config, prefix + key.name, None) for key in fields(cls)}
        loaded = settings.load(cls, name, given)
        found[name] = (loaded.host, loaded.port)
        if isinstance(loaded, SenderConfig):
            found[DATA_PORT] = (loaded.host, loaded.data_port)
    return found


def dial_address(host: str, port: int) -> str:
    """Return the address at which clients on this machine reach a `host` and `port`."""
    return format_address(_DIALLED.get(host, host), port)


def _service_of(endpoint: str) -> str:
    return endpoint.partition(" ")[0]


def _check_source(config: ServeConfig, names: Collection[str]) -> None:
    if config.again and config.replay is None:
        raise UsageError("--again: ingests a file again; name it with --replay FILE")
    if not config.simulate and config.replay is None:
        return
    if config.simulate and config.replay is not None:
        raise UsageError("--simulate and --replay: choose one")
    if "serve-tcp" not in names:
        raise UsageError("--simulate and --replay feed serve-tcp, which --only leaves out")
    if config.replay is not None and not Path(config.replay).is_file():
        raise InputError(f"{config.replay}: no such file")


def _check_book(config: ServeConfig, names: Collection[str]) -> None:
    if config.book is None:
        if "replay-dbn" in names:
            raise UsageError("--only replay-dbn: nothing to replay; name a file with --book FILE")
        return
    if "replay-dbn" not in names:
        raise UsageError("--book is replayed by replay-dbn, which --only leaves out")
    if not Path(config.book).is_file():
        raise InputError(f"{config.book}: no such file")


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
    if name.strip() != _SCALED or not is_count:
        raise UsageError(f"--scale {config.scale}: give {_SCALED}=N, N from 1 to {_MAX_SCALE}")
    return int(count)


@dataclass(frozen=True, slots=True)
class _Stack:
    """Makes the programs of one `serve all`.

    Attributes
    ----------
    config : ServeConfig
    names : collection of str
        The services that run.
    where : mapping
        The host and the port of each endpoint.
    store : str
        The URL of the store, empty for none.
    mdtool : sequence of str
        The command that runs mdtool.
    """

    config: ServeConfig
    names: Collection[str]
    where: Mapping[str, tuple[str, int]]
    store: str
    mdtool: Sequence[str]

    def service(self, name: str, count: int) -> Iterator[Program]:
        """Yield the programs of a service that runs `count` times.

        The first listens on the service's own port, the others on free ones.
        """
        host, port = self.where[name]
        for number in range(1, count + 1):
            own_port = port if number == 1 else 0
            command = [name, "--host", host, "--port", str(own_port)]
            yield Program(
                name if count == 1 else f"{name}-{number}",
                [*self.mdtool, *command, *self._options(name)],
                group=name,
                environment=self._environment(name),
            )

    def store_program(self) -> Program:
        """Return the program that stores what is on the bus."""
        return Program(
            STORE,
            [*self.mdtool, STORE, "--bus", self.config.bus],
            group=STORE,
            environment={settings.variable(STORE, "store"): self.store},
        )

    def source(self) -> Program:
        """Return the program that sends simulated or replayed trades to serve-tcp."""
        config = self.config
        if config.replay is None:
            name = "simulate"
            options = ["--simulate", "--rate", f"{config.rate:g}"]
            first_tick_s = _COMPILE_S if config.rate >= 1 else _FIRST_TICK_S
        else:
            name = "replay"
            speed = 1 if config.speed is None else config.speed
            prices = settings.load(IngestConfig, "serve-tcp", {}).prices
            options = [config.replay, "--speed", f"{speed:g}", "--prices", prices]
            # A stream with its own id that is cut off and sent again counts every trade once.
            options += ["--stream-id", f"replay-{uuid.uuid4()}"] if config.again else ["--once"]
            first_tick_s = _FIRST_TICK_S
        command = [*self.mdtool, "send", dial_address(*self.where["serve-tcp"]), *options]
        return Program(name, command, is_source=True, after="serve-tcp", first_tick_s=first_tick_s)

    def _options(self, name: str) -> list[str]:
        config = self.config
        options = ["--serve"] if name in BOOK_SERVICES else []
        if name == "replay-dbn" and config.book is not None:
            data_port = self.where[DATA_PORT][1]
            speed = 0 if config.speed is None else config.speed
            options += ["--data-port", str(data_port), "--speed", f"{speed:g}", config.book]
        for option, endpoint in _PEERS.get(name, {}).items():
            is_on_bus = config.bus and endpoint == "aggregate"
            if _service_of(endpoint) in self.names and not is_on_bus:
                options += [option, dial_address(*self.where[endpoint])]
        return options

    def _environment(self, name: str) -> dict[str, str]:
        """Return the settings that are not options, since a URL may contain a password."""
        environment = {}
        if name in _STORING:
            is_stored_by_another = self.config.bus and name == "aggregate"
            url = "" if is_stored_by_another else self.store
            environment[settings.variable(name, "store")] = url
        if self.config.bus and name not in BOOK_SERVICES:
            environment[settings.variable(name, "bus")] = self.config.bus
        return environment


def _with_time_to_stop(running: Sequence[Program], shares: Mapping[str, float]) -> list[Program]:
    """Return the programs with the time that each may take to stop."""
    within_s = stop_within_s()
    share_of = {
        program.group or program.name: shares.get(program.group, _STOP_SHARE_OF_SOURCE)
        for program in running
    }
    first_to_stop = next(reversed(share_of))
    share_of[first_to_stop] += _STOP_SHARE_OF_ALL - sum(share_of.values())
    return [
        replace(program, stop_s=within_s * share_of[program.group or program.name])
        for program in running
    ]
