"""Which processes a supervisor runs: their commands, and the addresses they are told."""

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
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.replay.config import SenderConfig
from mdtool.services.supervisor.bus import STORE, aggregators
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.ports import reserve_port
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
"""Each service's settings. What connects to another comes after it, for they stop in reverse."""
BOOK_SERVICES: Final = frozenset({"book", "replay-dbn"})
"""Those that run only where there is a file for them, or they are named."""
DATA_PORT: Final = "replay-dbn data"
"""The endpoint on which replay-dbn streams, beside its HTTP."""
_PEERS: Final[Mapping[str, Mapping[str, str]]] = {
    "gateway": {
        "--aggregator": "aggregate",
        "--sender": "replay-dbn",
        "--receiver": "book",
        "--quotes-from": DATA_PORT,
    },
    "vwap": {"--aggregator": "aggregate"},
    "serve-tcp": {"--aggregator": "aggregate"},
    "book": {"--sender": DATA_PORT},
}
"""Which endpoints of others a service is told, by option; of those that run."""
_STORING: Final = ("gateway", "vwap", "aggregate")
"""Those that are told where the store is."""
PYTHON: Final = (sys.executable, "-P", "-m", "mdtool")
"""How this same mdtool is started again, whatever Python files lie in the working folder."""

_STOP_SHARES: Final = {
    "gateway": 0.1,
    "vwap": 0.04,
    "aggregate": 0.1,
    "serve-tcp": 0.52,
    "book": 0.04,
    "replay-dbn": 0.04,
}
"""Of the time there is to stop. serve-tcp waits for the commit of what it took."""
_STOP_SHARES_ON_BUS: Final = {**_STOP_SHARES, "serve-tcp": 0.44, STORE: 0.08}
"""With a bus, where there is one more to stop."""
_STOP_SHARE_OF_SOURCE: Final = 0.14
_STOP_SHARE_OF_ALL: Final = 0.98
"""What all may take together; what is left over goes to those that stop first, and so to all."""
_FIRST_TICK_S: Final = 2.0
_COMPILE_S: Final = 60.0
"""A simulated market trades at once, but on a first use its kernels are compiled before that."""
_DIALLED: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class Program:
    """A process to be kept running.

    Attributes
    ----------
    name : str
        What its lines are prefixed with.
    command : sequence of str
        The program and its arguments.
    is_source : bool
        Whether it may end by itself: it is done then, and not started again.
    group : str
        Those that follow each other and are of one group stop at the same time.
    after : str or None
        The program that has to be ready before this one starts.
    stop_s : float
        How long it may take to stop, beside what those stopped before it have left over.
    first_tick_s : float
        How long the news that all are ready is held back for a source's first tick to arrive.
    environment : mapping of str to str
        What is set in its environment beside that of the supervisor.
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
    """Give the processes that `config` asks for, in the order in which they start.

    Port 0 has become a free port by then, held until the context ends, so that each process can
    be told where the others will be.

    Parameters
    ----------
    config : ServeConfig
        The supervisor's settings; those of each service are loaded beside them.
    mdtool : sequence of str
        The command that runs mdtool, with options that stand before a subcommand.

    Raises
    ------
    UsageError
        When the settings contradict each other.
    InputError
        When there is no such file to replay.
    StartupError
        When a host is no address of this machine, or the folder of the store cannot be made.
    """
    names = chosen(config)
    _check_source(config, names)
    _check_book(config, names)
    count = aggregators(config)
    store = chosen_store(config) if not {*_STORING, STORE}.isdisjoint(names) else ""
    with contextlib.ExitStack() as held:
        where = {}
        for name, (host, port) in endpoints(config).items():
            if _service_of(name) in names and port == 0:
                holder = held.enter_context(reserve_port(host))
                where[name] = (host, holder.getsockname()[1])
            else:
                where[name] = (host, port)
        running = [
            program
            for name in SERVICES
            if name in names
            for program in _service(name, config, names, where, store, mdtool, count)
        ]
        if STORE in names and store:
            feeding = next((k for k, p in enumerate(running) if p.group == "serve-tcp"), None)
            running.insert(
                len(running) if feeding is None else feeding, _keeper(config, store, mdtool)
            )
        if config.simulate or config.replay is not None:
            running.append(_source(config, mdtool, dial_address(*where["serve-tcp"])))
        yield _with_time_to_stop(running, _STOP_SHARES_ON_BUS if config.bus else _STOP_SHARES)


def kept_in(running: Sequence[Program]) -> str:
    """Return where these programs keep their data, for people, without secrets."""
    from mdtool.adapters.stores import open_history  # which brings numpy

    places = []
    for program in running:
        if url := program.environment.get(settings.variable(program.group, "bus")):
            places.append(str(KafkaAddress.parse(url)))
        if url := program.environment.get(settings.variable(program.group, "store")):
            places.append(open_history(url).address)
    if not places:
        return "nothing is kept"
    return f"trades and what they make are kept in {' and '.join(dict.fromkeys(places))}"


def chosen(config: ServeConfig) -> Collection[str]:
    """Return the services that `--only` names; when it is empty, all that there is work for.

    Raises
    ------
    UsageError
        When there is no such service.
    """
    names = {name.strip() for name in config.only.split(",")} - {""}
    known = [*SERVICES, STORE] if config.bus else list(SERVICES)
    if not names:
        return set(known) - (BOOK_SERVICES if config.book is None else frozenset())
    for name in sorted(names - set(known)):
        raise UsageError(f"--only {name}: no such service; choose from {', '.join(known)}")
    return names


def endpoints(config: ServeConfig) -> dict[str, tuple[str, int]]:
    """Return the host and the port that each service is set to listen on, and `DATA_PORT`'s."""
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
    """Return where a client on this machine reaches what listens on `host` and `port`."""
    return format_address(_DIALLED.get(host, host), port)


def _service_of(endpoint: str) -> str:
    return endpoint.partition(" ")[0]


def _check_source(config: ServeConfig, names: Collection[str]) -> None:
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
            raise UsageError("--only replay-dbn: say what it replays with --book FILE")
        return
    if "replay-dbn" not in names:
        raise UsageError("--book is replayed by replay-dbn, which --only leaves out")
    if not Path(config.book).is_file():
        raise InputError(f"{config.book}: no such file")


def _service(
    name: str,
    config: ServeConfig,
    names: Collection[str],
    where: Mapping[str, tuple[str, int]],
    store: str,
    mdtool: Sequence[str],
    aggregators: int,
) -> Iterator[Program]:
    """Yield the program of a service, which is told where those are that it speaks to.

    Of one that runs several times, the first listens where the service is set to.
    """
    host, port = where[name]
    count = aggregators if name == "aggregate" else 1
    for number in range(1, count + 1):
        own_port = port if number == 1 else 0
        command = [name, "--host", host, "--port", str(own_port)]
        yield Program(
            name if count == 1 else f"{name}-{number}",
            [*mdtool, *command, *_options(name, config, names, where)],
            group=name,
            environment=_environment(name, config, store),
        )


def _options(
    name: str,
    config: ServeConfig,
    names: Collection[str],
    where: Mapping[str, tuple[str, int]],
) -> list[str]:
    options = ["--serve"] if name in BOOK_SERVICES else []
    if name == "replay-dbn" and config.book is not None:
        data_port = where[DATA_PORT][1]
        speed = 0 if config.speed is None else config.speed
        options += ["--data-port", str(data_port), "--speed", f"{speed:g}", config.book]
    for option, endpoint in _PEERS.get(name, {}).items():
        is_on_bus = config.bus and endpoint == "aggregate"
        if _service_of(endpoint) in names and not is_on_bus:
            options += [option, dial_address(*where[endpoint])]
    return options


def _environment(name: str, config: ServeConfig, store: str) -> dict[str, str]:
    """Return the settings that are no options, for a URL may hold what is not for all to see."""
    environment = {}
    if name in _STORING:
        is_kept_by_another = config.bus and name == "aggregate"
        environment[settings.variable(name, "store")] = "" if is_kept_by_another else store
    if config.bus and name not in BOOK_SERVICES:
        environment[settings.variable(name, "bus")] = config.bus
    return environment


def _keeper(config: ServeConfig, store: str, mdtool: Sequence[str]) -> Program:
    """Return the program that keeps what is on the bus."""
    return Program(
        STORE,
        [*mdtool, STORE, "--bus", config.bus],
        group=STORE,
        environment={settings.variable(STORE, "store"): store},
    )


def _source(config: ServeConfig, mdtool: Sequence[str], address: str) -> Program:
    if config.replay is None:
        name = "simulate"
        options = ["--simulate", "--rate", f"{config.rate:g}"]
        first_tick_s = _COMPILE_S if config.rate >= 1 else _FIRST_TICK_S
    else:
        name = "replay"
        # With a name of its own, a stream that is cut off and sent anew counts every trade once.
        stream_id = f"replay-{uuid.uuid4()}"
        speed = 1 if config.speed is None else config.speed
        options = [config.replay, "--speed", f"{speed:g}", "--stream-id", stream_id]
        first_tick_s = _FIRST_TICK_S
    command = [*mdtool, "send", address, *options]
    return Program(name, command, is_source=True, after="serve-tcp", first_tick_s=first_tick_s)


def _with_time_to_stop(running: Sequence[Program], shares: Mapping[str, float]) -> list[Program]:
    """Return the programs, each with how long it may take to stop."""
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
