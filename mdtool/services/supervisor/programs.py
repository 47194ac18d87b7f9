"""The processes that a supervisor runs: their commands and environments."""

from __future__ import annotations

import secrets
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

from mdtool.adapters.identity.config import NONE, AuthConfig
from mdtool.core import config as settings
from mdtool.core.addresses import dial_address
from mdtool.core.lifecycle import drain_s, stop_within_s
from mdtool.services.supervisor.topology import (
    BOOK_SERVICES,
    LIVE,
    SCALED,
    SERVICES,
    STORE,
    Topology,
)

PYTHON: Final = (sys.executable, "-P", "-m", "mdtool")
"""The command of this same mdtool, whatever Python files are in the working folder."""
TOGETHER: Final = "services"
"""The program that runs all services in one process."""

_STOP_SHARES: Final = {
    "gateway": 0.1,
    "vwap": 0.04,
    "aggregate": 0.1,
    "serve-tcp": 0.5,
    LIVE: 0.02,
    "book": 0.04,
    "replay-dbn": 0.04,
}
"""Shares of the time to stop. serve-tcp waits until what it accepted is committed."""
_STOP_SHARES_ON_BUS: Final = {**_STOP_SHARES, "serve-tcp": 0.42, STORE: 0.08}
"""With a bus, where the store program stops too."""
STOP_SHARE_OF_SOURCE: Final = 0.14
_STOP_SHARE_OF_ALL: Final = 0.98
"""The share of all together; what is unused goes to those that stop first, and so to all."""


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
    services : sequence of str
        The services that share the process, empty where it is one service of its own.
    """

    name: str
    command: Sequence[str]
    is_source: bool = False
    group: str = ""
    after: str | None = None
    stop_s: float = 1.0
    first_tick_s: float = 2.0
    environment: Mapping[str, str] = field(default_factory=dict)
    services: Sequence[str] = ()


def programs(topology: Topology, mdtool: Sequence[str] = PYTHON) -> list[Program]:
    """Return the processes of a topology, in the order in which they start.

    Parameters
    ----------
    topology : Topology
    mdtool : sequence of str
        The command that runs mdtool, with options that precede a subcommand.
    """
    if topology.is_one_process:
        found = [_together(topology, mdtool)]
    else:
        found = _with_time_to_stop(list(_separate(topology, mdtool)), stop_shares(topology))
    secret = _secret_of_run(topology)
    return [replace(each, environment={**secret, **each.environment}) for each in found]


def _secret_of_run(topology: Topology) -> Mapping[str, str]:
    """Return the variable by which the services of a run trust each other, where clients may not.

    The variables of a process, unlike its arguments, are for its own user.
    """
    config = settings.load(AuthConfig, "auth", {"mode": topology.config.auth})
    if config.mode == NONE or config.services_secret:
        return {}
    return {settings.variable("auth", "services_secret"): secrets.token_urlsafe(32)}


def stop_shares(topology: Topology) -> Mapping[str, float]:
    """Return the share of the time to stop that each service may take."""
    return _STOP_SHARES_ON_BUS if topology.config.bus else _STOP_SHARES


def drains_s(name: str) -> float:
    """Return for how long a service of several drains before its time to stop begins.

    Those that serve the gateway stop after it, and so they serve on while it drains.
    """
    return drain_s() if name == "gateway" else 0.0


def _separate(topology: Topology, mdtool: Sequence[str]) -> Iterator[Program]:
    """Yield a process for each service, and one for the source."""
    for name in SERVICES:
        if name == "serve-tcp" and topology.runs_store:
            yield _store_program(topology, mdtool)
        if name in topology.names:
            yield from _service(topology, name, mdtool)
    if topology.source is not None:
        yield _source(topology, topology.source, mdtool)


def _together(topology: Topology, mdtool: Sequence[str]) -> Program:
    """Return the process that runs all services, and the source.

    Its settings are in its environment: the store's URL may contain a password.
    """
    names = [*topology.order, *([topology.source] if topology.source else [])]
    config = replace(topology.config, **topology.ports())  # type: ignore[arg-type]
    environment = {
        settings.variable("serve", each.name): str(value)
        for each in fields(config)
        if (value := getattr(config, each.name)) is not None and each.name != "only"
    }
    if config.again:
        environment[settings.variable("send", "stream_id")] = _stream_id()
    return Program(
        TOGETHER,
        [*mdtool, "serve", "together", "--only", ",".join(topology.order)],
        services=names,
        stop_s=stop_within_s() * _STOP_SHARE_OF_ALL + drain_s(),
        environment=environment,
    )


def _service(topology: Topology, name: str, mdtool: Sequence[str]) -> Iterator[Program]:
    """Yield the processes of a service.

    The first listens on the service's own port, the others on free ones.
    """
    count = topology.n_aggregators if name == SCALED else 1
    environment = {
        settings.variable(name, setting): url for setting, url in topology.storage(name).items()
    }
    options = ["--serve"] if name in BOOK_SERVICES else []
    for number in range(1, count + 1):
        addresses = topology.addresses(name) | topology.sockets(name)
        if number > 1:
            addresses["port"] = 0
        for setting, value in addresses.items():
            options += [f"--{setting.replace('_', '-')}", str(value)]
        if name == "replay-dbn" and topology.config.book is not None:
            options += ["--speed", f"{topology.book_speed:g}", topology.config.book]
        if name == LIVE and topology.config.live is not None:
            options += ["--speed", f"{topology.live_speed:g}", topology.config.live]
        yield Program(
            name if count == 1 else f"{name}-{number}",
            [*mdtool, name, *options],
            group=name,
            environment=environment,
        )
        options = []


def _store_program(topology: Topology, mdtool: Sequence[str]) -> Program:
    """Return the process that stores what is on the bus."""
    return Program(
        STORE,
        [*mdtool, STORE, "--bus", topology.config.bus],
        group=STORE,
        environment={settings.variable(STORE, "store"): topology.store},
    )


def _source(topology: Topology, name: str, mdtool: Sequence[str]) -> Program:
    """Return the process that sends simulated, replayed or live trades to serve-tcp."""
    config = topology.config
    if config.ingest is not None:
        options = ["--ingest", config.ingest, "--symbols", config.symbols]
        options += ["--prices", topology.replayed_prices]
    elif config.replay is None:
        options = ["--simulate", "--rate", f"{config.rate:g}"]
    else:
        speed = f"{topology.replay_speed:g}"
        options = [config.replay, "--speed", speed, "--prices", topology.replayed_prices]
        options += ["--stream-id", _stream_id()] if config.again else ["--once"]
    if topology.quotes_at:
        options += ["--quotes-at", topology.quotes_at]
    return Program(
        name,
        [*mdtool, "send", dial_address(*topology.where["serve-tcp"]), *options],
        is_source=True,
        after="serve-tcp",
        first_tick_s=topology.first_tick_s,
    )


def _stream_id() -> str:
    """Return the id of a replay: a stream that is cut off and sent again counts each trade once."""
    return f"replay-{uuid.uuid4()}"


def _with_time_to_stop(running: Sequence[Program], shares: Mapping[str, float]) -> list[Program]:
    """Return the programs with the time that each may take to stop."""
    within_s = stop_within_s()
    share_of = {
        program.group or program.name: shares.get(program.group, STOP_SHARE_OF_SOURCE)
        for program in running
    }
    first_to_stop = next(reversed(share_of))
    share_of[first_to_stop] += _STOP_SHARE_OF_ALL - sum(share_of.values())
    found = []
    for program in running:
        name = program.group or program.name
        environment = dict(program.environment)
        if drains_s(name) != drain_s():
            environment[settings.variable("stop", "drain_s")] = str(drains_s(name))
        stop_s = within_s * share_of[name] + drains_s(name)
        found.append(replace(program, stop_s=stop_s, environment=environment))
    return found
