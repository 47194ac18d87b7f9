"""The local stack under load while its services are killed, and the exactness of its store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from mdtool.adapters.stores import TradeHistory, open_history
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.bench.chaos_verdict import Input, Traded, judge_answer, judge_store
from mdtool.bench.figures import Figure
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import one_error
from mdtool.services.supervisor import programs as stack
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.output import styles
from mdtool.services.supervisor.supervisor import Supervisor
from mdtool.services.supervisor.topology import prepared

KILLS: Final = 20
TICKS_PER_S: Final = 50_000
_EARLY: Final = 0.25
"""The share of kills that come before the stack has recovered from the kill before."""
_LATEST_S: Final = 0.5
"""The longest delay of a kill after ticks are stored again."""
_WRITE_S: Final = 0.02
_LOOK_S: Final = 0.05
PATIENCE_S: Final = 60.0
"""How long the stack may take to recover."""
MDTOOL: Final = (*stack.PYTHON, "--log-level", "error")

Show = Callable[[str], None]
"""Shows progress."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The load on the stack, and which services are killed, how often.

    Attributes
    ----------
    kills : int
        How often a service is killed.
    ticks_per_s : int
        How many ticks it is sent, unless backpressure blocks.
    seed : int
        The seed of the ticks, and of which services are killed in which order and when.
    spared : frozenset of str
        Services that are not killed.
    is_plain : bool
        Whether the sender is one that cannot resend.
    is_one_process : bool
        Whether the services share one process, which is then what is killed.
    """

    kills: int = KILLS
    ticks_per_s: int = TICKS_PER_S
    seed: int = 0
    spared: frozenset[str] = frozenset()
    is_plain: bool = False
    is_one_process: bool = False


class Victim(NamedTuple):
    """A service to kill."""

    name: str
    after_s: float
    """How long after ticks are stored again, or after the kill before."""
    is_early: bool
    """Whether it is killed before ticks are stored again."""


def victims(plan: Plan, services: Sequence[str]) -> list[Victim]:
    """Return the services that a plan kills, in order: always the same for a seed."""
    chance = random.Random(plan.seed)  # noqa: S311 - to be the same again for a seed
    names = sorted(set(services) - plan.spared)
    return [
        Victim(
            chance.choice(names),
            after_s=chance.uniform(0, _LATEST_S),
            is_early=number > 0 and chance.random() < _EARLY,
        )
        for number in range(plan.kills)
    ]


async def measure(kills: int = KILLS, seed: int = 0, show: Show = lambda _: None) -> list[Figure]:
    """Kill services of a stack with a SQLite store at random while ticks are sent, and compare.

    First with a process for each service, then with one process for all of them.

    A seed gives the same ticks and the same victims in the same order.

    Most kills come once ticks are stored again after the one before, some earlier. The input is
    compared with everything that is made of it: raw trades, totals, sessions, one-second bars, and
    the gateway's answers.

    Raises
    ------
    PeerError
        When the stack does not recover.
    """
    figures = []
    for is_one_process in (False, True):
        with tempfile.TemporaryDirectory(prefix="mdtool-chaos-") as folder:
            url = f"sqlite:///{Path(folder) / 'mdtool.db'}"
            plan = Plan(kills, seed=seed, is_one_process=is_one_process)
            figures += await run_chaos(plan, url, show)
    return figures


async def run_chaos(plan: Plan, url: str, show: Show = lambda _: None) -> list[Figure]:
    """Do as `measure`, by a plan, with a new store at a URL."""
    ticks = Input(plan.seed)
    free_ports: dict[str, Any] = {
        each.name: 0 for each in fields(ServeConfig) if each.name.endswith("_port")
    }
    config = ServeConfig(store=url, processes=not plan.is_one_process, **free_ports)
    with quiet(), prepared(config) as topology:
        programs = stack.programs(topology, MDTOOL)
        async with supervised(programs) as (supervisor, addresses), asyncio.TaskGroup() as tasks:
            enough = asyncio.Event()
            feeding = tasks.create_task(feed(ticks, plan, addresses["serve-tcp tcp"], enough))
            chosen = victims(plan, [program.name for program in programs])
            with open_history(url) as history:
                await _kill(supervisor, chosen, history, show)
            enough.set()
            await feeding
            traded = ticks.traded()
            show(f"killed {plan.kills} times; comparing {ticks.ticks:,} ticks")
            async with aiohttp.ClientSession(f"http://{addresses['gateway http']}") as session:
                wrong = await judge_gateway(session, traded)
    verdict = await asyncio.to_thread(judge_store, url, traded)
    name = "chaos_one_process" if plan.is_one_process else "chaos"
    return [
        Figure(f"{name}_kills", plan.kills, "kills"),
        Figure(f"{name}_ticks", ticks.ticks, "ticks"),
        Figure(f"{name}_lost", verdict.lost, "ticks", "lower"),
        Figure(f"{name}_double", verdict.double, "ticks", "lower"),
        Figure(f"{name}_wrong", verdict.wrong + wrong, "values", "lower"),
    ]


@contextlib.asynccontextmanager
async def supervised(
    programs: list[stack.Program],
) -> AsyncIterator[tuple[Supervisor, Mapping[str, str]]]:
    """Run programs under a supervisor; yield it and the addresses once all are ready.

    Raises
    ------
    MdtoolError
        What the supervisor raised.
    """
    ready: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    supervisor = Supervisor(programs, styles(programs, "text"), lambda _: None)
    with one_error():
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervisor.run(ready.set_result))
            yield supervisor, await ready
            running.cancel()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the supervisor from logging every service that ends."""
    log = logging.getLogger("mdtool.services.supervisor")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


async def feed(ticks: Input, plan: Plan, address: str, enough: asyncio.Event) -> None:
    """Send ticks until there are enough, and wait until all of them are acknowledged.

    Raises
    ------
    PeerError
        When they are not.
    """
    options = ["--plain"] if plan.is_plain else ["--stream-id", "chaos"]
    process = await asyncio.create_subprocess_exec(
        *(*MDTOOL, "send", "-", address, "--quiet", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(ticks.header())
        began_s = time.monotonic()
        while not enough.is_set():
            due = int((time.monotonic() - began_s) * plan.ticks_per_s) - ticks.ticks
            at_once = int(2 * _WRITE_S * plan.ticks_per_s)
            process.stdin.write(ticks.next(max(1, min(due, at_once))))
            await process.stdin.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_S):
                    await enough.wait()
        process.stdin.close()
        output, _ = await process.communicate()
    except ConnectionError:
        output = b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        status = await process.wait()
    if status:
        raise PeerError(f"mdtool send ended with status {status}: {output.decode().strip()}")


async def _kill(
    supervisor: Supervisor, chosen: Sequence[Victim], history: TradeHistory, show: Show
) -> None:
    """Kill one service after the other, and wait until ticks flow again."""
    stored, since = 0, "the start"
    killed: dict[str, int] = {}
    for number, (name, after_s, is_early) in enumerate(chosen, 1):
        if not is_early:
            stored = await wait_for_more(history, stored, since)
        await asyncio.sleep(after_s)
        killed[name] = await kill_one(supervisor, name, killed.get(name))
        show(f"killed {number} of {len(chosen)} times, {name} last; {stored:,} ticks stored")
        since = f"{name} was killed"
    await wait_for_more(history, stored, since)


async def kill_one(supervisor: Supervisor, name: str, killed_before: int | None) -> int:
    """Kill a service, once it was started again after the last kill; return the process id.

    Raises
    ------
    PeerError
        When it is not started again in time.
    """
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s:
        process_id = supervisor.process_ids.get(name)
        if process_id is not None and process_id != killed_before:
            os.kill(process_id, signal.SIGKILL)
            return process_id
        await asyncio.sleep(_LOOK_S)
    raise PeerError(f"{name} has not been started again for {PATIENCE_S:g} s")


async def wait_for_more(history: TradeHistory, stored: int, since: str) -> int:
    """Wait until more ticks are stored than before; return how many.

    Raises
    ------
    PeerError
        When that takes too long.
    """
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s:
        with contextlib.suppress(StoreUnavailableError):
            totals = await asyncio.to_thread(history.symbols)
            if (now_stored := sum(each.trade_count for each in totals)) > stored:
                return now_stored
        await asyncio.sleep(_LOOK_S)
    raise PeerError(f"no tick was stored for {PATIENCE_S:g} s since {since}")


async def judge_gateway(session: aiohttp.ClientSession, inputs: Mapping[str, Traded]) -> int:
    """Return how many values of its aggregates differ from the input's, once it has caught up.

    Parameters
    ----------
    session : aiohttp.ClientSession
        With the gateway's address.
    inputs : mapping of str to Traded
        The trades of each symbol.
    """
    wrong = [await _settled(session, symbol, traded) for symbol, traded in inputs.items()]
    return sum(wrong)


async def _settled(session: aiohttp.ClientSession, symbol: str, traded: Traded) -> int:
    """Return how many values of a symbol differ, after waiting for the gateway to catch up."""
    ends_s = time.monotonic() + PATIENCE_S
    answer: dict[str, Any] = {}
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(f"/api/v1/marketdata/{symbol}") as response:
                answer = await response.json() if response.ok else {}
        is_fresh = bool(answer) and "stale" not in answer
        wrong = judge_answer(answer, traded) if is_fresh else 1
        if not wrong or time.monotonic() > ends_s:
            return wrong
        await asyncio.sleep(_LOOK_S)
