"""The local stack under load for a long time: what each service's use grows by, and its exactness.

Meanwhile services are killed, clients read too slowly, and certificates are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import os
import random
import ssl
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import numpy as np

from mdtool.adapters.certificates import LOCAL_NAMES, Authority
from mdtool.adapters.stores import open_history
from mdtool.bench import process_trees
from mdtool.bench.chaos import (
    MDTOOL,
    PATIENCE_S,
    Plan,
    Show,
    feed,
    judge_gateway,
    kill_one,
    quiet,
    supervised,
    wait_for_more,
)
from mdtool.bench.chaos_verdict import Input, judge_store
from mdtool.bench.figures import Figure
from mdtool.core.addresses import parse_address
from mdtool.core.config import variable
from mdtool.core.errors import PeerError
from mdtool.core.tls import SECTION, http_options
from mdtool.services.gateway.protocols.stream import PATH
from mdtool.services.supervisor import programs as stack
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.supervisor import Supervisor
from mdtool.services.supervisor.topology import prepared

MINUTES: Final = 30.0
TICKS_PER_S: Final = 2_000
SLOW_CLIENTS: Final = 20
_KILLS: Final = 6
"""Few, since a service that is started again has grown by nothing."""
_ROTATIONS: Final = 15
_SAMPLES: Final = 360
_WARM: Final = 0.05
"""The share of the time after its start in which a service fills its memory."""
_READS: Final = 100
_PAUSE_S: Final = 0.2
"""A slow client reads so many messages, and waits so long: a quarter of the trades at most."""
_LOOK_S: Final = 0.05
_HOUR_S: Final = 3_600
_VALID: Final = dt.timedelta(days=1)
_SUBSCRIBE: Final = {"op": "subscribe", "id": 1, "channel": "trades", "symbols": ["*"]}
_KINDS: Final[Mapping[str, tuple[str, Callable[[int], float]]]] = {
    "memory": ("MB more an hour", process_trees.proportional_mb),
    "descriptors": ("more an hour", process_trees.descriptors),
    "threads": ("more an hour", process_trees.threads),
}
"""What is looked at, with the units of its growth."""


async def measure(
    minutes: float = MINUTES, seed: int = 0, show: Show = lambda _: None
) -> list[Figure]:
    """Return by how much each service's use grows, and what its store and gateway got wrong.

    Each service is a process, listens with TLS, and is killed now and then. The growth is the slope
    over time that fits all of its processes best, without their first moments.

    Parameters
    ----------
    minutes : float
        How long the load lasts.
    seed : int
        Of the ticks and of the services that are killed.
    show : callable
        Shows progress.

    Raises
    ------
    PeerError
        When the stack does not recover, or does not use a new certificate.
    ConfigError
        When cryptography is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="mdtool-soak-") as name, quiet():
        folder = Path(name)
        with _certificates(folder) as certificates:
            return await _run(
                f"sqlite:///{folder / 'mdtool.db'}", certificates, minutes, seed, show
            )


async def _run(
    url: str, certificates: _Certificates, minutes: float, seed: int, show: Show
) -> list[Figure]:
    ticks = Input(seed)
    free_ports: dict[str, Any] = {
        each.name: 0 for each in fields(ServeConfig) if each.name.endswith("_port")
    }
    with prepared(ServeConfig(store=url, processes=True, **free_ports)) as topology:
        programs = stack.programs(topology, MDTOOL)
        names = [program.name for program in programs]
        async with supervised(programs) as (supervisor, addresses), asyncio.TaskGroup() as tasks:
            enough = asyncio.Event()
            plan = Plan(ticks_per_s=TICKS_PER_S)
            feeding = tasks.create_task(feed(ticks, plan, addresses["serve-tcp tcp"], enough))
            load = _Load(addresses["gateway http"], url, certificates, 60 * minutes)
            meanwhile = [
                tasks.create_task(load.kill(supervisor, names, seed)),
                tasks.create_task(load.replace_certificates()),
                *(tasks.create_task(load.read_slowly()) for _ in range(SLOW_CLIENTS)),
            ]
            samples = await _sampled(supervisor, 60 * minutes, load, ticks, show)
            for task in meanwhile:
                task.cancel()
            enough.set()
            await feeding
            show(f"comparing {ticks.ticks:,} ticks")
            traded = ticks.traded()
            async with load.session() as session:
                wrong = await judge_gateway(session, traded)
    verdict = await asyncio.to_thread(judge_store, url, traded)
    return [
        Figure("soak_ticks", ticks.ticks, "ticks"),
        Figure("soak_kills", load.kills, "kills"),
        Figure("soak_certificates", load.replaced, "new certificates"),
        Figure("soak_slow_clients", load.began, "connections of slow clients"),
        Figure("soak_missed", load.missed, "trades that slow clients were told they missed"),
        Figure("soak_lost", verdict.lost, "ticks", "lower"),
        Figure("soak_double", verdict.double, "ticks", "lower"),
        Figure("soak_wrong", verdict.wrong + wrong, "values", "lower"),
        *(figure for name in names for figure in _growth(name, samples)),
    ]


@dataclass(slots=True)
class _Certificates:
    """The certificate of every listener, which can be replaced."""

    authority: Authority
    folder: Path

    def issue(self) -> None:
        """Write a new one in place of the last."""
        self.authority.issue(self.folder, "server", LOCAL_NAMES, _VALID)

    def serves(self, address: str) -> bool:
        """Return whether a listener has the one that was written last."""
        served = ssl.get_server_certificate(parse_address(address), timeout=PATIENCE_S)
        return served.strip() == (self.folder / "server.pem").read_text().strip()


@contextlib.contextmanager
def _certificates(folder: Path) -> Iterator[_Certificates]:
    """Have the processes started within the block listen with TLS, and trust each other."""
    certificates = _Certificates(Authority.make("mdtool bench", _VALID), folder)
    certificates.authority.write(folder)
    certificates.issue()
    before = dict(os.environ)
    for name, file in (("cert", "server.pem"), ("key", "server.key"), ("ca", "ca.pem")):
        os.environ[variable(SECTION, name)] = str(folder / file)
    try:
        yield certificates
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(slots=True)
class _Load:
    """What the stack has to stand, besides the ticks.

    Attributes
    ----------
    gateway, url : str
        The gateway's address, and the store's.
    certificates : _Certificates
    seconds : float
        How long all of it lasts.
    kills, replaced : int
        Services killed and certificates replaced so far.
    began, missed : int
        Connections of slow clients so far, and the trades that these were told they missed.
    """

    gateway: str
    url: str
    certificates: _Certificates
    seconds: float
    kills: int = field(default=0, init=False)
    replaced: int = field(default=0, init=False)
    began: int = field(default=0, init=False)
    missed: int = field(default=0, init=False)

    def session(self) -> aiohttp.ClientSession:
        """Return a session of requests to the gateway."""
        context = http_options("gateway", self.gateway)["ssl"]
        connector = aiohttp.TCPConnector(ssl=context)
        return aiohttp.ClientSession(f"https://{self.gateway}", connector=connector)

    async def kill(self, supervisor: Supervisor, names: Sequence[str], seed: int) -> None:
        """Kill a service again and again; between two kills ticks must be stored."""
        chance = random.Random(seed)  # noqa: S311 - to be the same again for a seed
        killed: dict[str, int] = {}
        stored, since = 0, "the start"
        with open_history(self.url) as history:
            while True:
                await asyncio.sleep(self.seconds / (_KILLS + 1))
                stored = await wait_for_more(history, stored, since)
                name = chance.choice(names)
                killed[name] = await kill_one(supervisor, name, killed.get(name))
                self.kills += 1
                since = f"{name} was killed"

    async def replace_certificates(self) -> None:
        """Replace the certificate again and again, until the gateway has the new one."""
        while True:
            await asyncio.sleep(self.seconds / (_ROTATIONS + 1))
            self.certificates.issue()
            ends_s = time.monotonic() + PATIENCE_S
            while not await self._has_new():
                if time.monotonic() > ends_s:
                    raise PeerError(f"the gateway has had no new certificate for {PATIENCE_S:g} s")
                await asyncio.sleep(_LOOK_S)
            self.replaced += 1

    async def _has_new(self) -> bool:
        try:
            return await asyncio.to_thread(self.certificates.serves, self.gateway)
        except OSError:  # it was killed
            return False

    async def read_slowly(self) -> None:
        """Follow every trade, and read too little of it; connect again when that was closed."""
        async with self.session() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.ws_connect(PATH) as socket:
                        self.began += 1
                        await socket.send_json(_SUBSCRIBE)
                        await self._read(socket)
                await asyncio.sleep(_PAUSE_S)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        for number in itertools.count(1):
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                return  # it was closed
            self.missed += message.json().get("missed") or 0
            if number % _READS == 0:
                await asyncio.sleep(_PAUSE_S)


class _Sample(NamedTuple):
    """What a process uses at a moment."""

    at_s: float
    values: tuple[float, ...]
    """In the order of `_KINDS`."""


_Lives = dict[str, dict[int, list[_Sample]]]
"""The samples of each service's processes, by their ids."""


async def _sampled(
    supervisor: Supervisor, seconds: float, load: _Load, ticks: Input, show: Show
) -> _Lives:
    """Look at the services again and again while the load lasts."""
    lives: _Lives = defaultdict(lambda: defaultdict(list))
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        for name, process_id in supervisor.process_ids.items():
            with contextlib.suppress(OSError):  # it has ended
                values = tuple(look(process_id) for _, look in _KINDS.values())
                lives[name][process_id].append(_Sample(passed_s, values))
        show(
            f"{passed_s / 60:.0f} of {seconds / 60:g} minutes; {ticks.ticks:,} ticks, "
            f"{load.kills} kills, {load.replaced} new certificates"
        )
        await asyncio.sleep(seconds / _SAMPLES)
    return lives


def _growth(name: str, lives: _Lives) -> list[Figure]:
    """Return the slopes of a service, and how much memory it had at last."""
    figures = []
    for place, (kind, (unit, _)) in enumerate(_KINDS.items()):
        slope = _slope([_points(life, place) for life in lives[name].values()])
        figures.append(Figure(f"soak_{name}_{kind}", slope * _HOUR_S, unit, "lower"))
    last = max((life[-1] for life in lives[name].values()), key=lambda sample: sample.at_s)
    return [*figures, Figure(f"soak_{name}_at_last", last.values[0], "MB", "lower")]


def _points(life: Sequence[_Sample], place: int) -> list[tuple[float, float]]:
    """Return the times and values of a process, without its first moments."""
    n_warm = int(_WARM * _SAMPLES)
    return [(sample.at_s, sample.values[place]) for sample in life[n_warm:]]


def _slope(lives: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Return the slope that fits points of several lives best, each from a height of its own.

    nan where there are no two points of one life.
    """
    products = squares = 0.0
    for points in lives:
        if len(points) > 1:
            times, values = np.array(points).T
            from_mean = times - times.mean()
            products += float(from_mean @ values)
            squares += float(from_mean @ from_mean)
    return products / squares if squares else float("nan")
