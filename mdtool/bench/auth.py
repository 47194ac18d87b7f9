"""What safety costs: TLS, requests with a token, updates for permission classes, API keys."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from mdtool.adapters.identity.api_keys import ApiKey
from mdtool.adapters.identity.authenticator import Authenticator
from mdtool.adapters.identity.config import OPTIONAL, REQUIRED, AuthConfig
from mdtool.bench.fanout import Server
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import SYMBOLS, frames, gateway_with_aggregate, send
from mdtool.bench.processes import stack
from mdtool.bench.requests import ROUND_S, compare, rest_answer, rest_load
from mdtool.bench.stomp_load import stomp_clients
from mdtool.core.config import CONFIG_VARIABLE
from mdtool.core.descriptors import raise_file_limit
from mdtool.core.permissions import Roles
from mdtool.core.units import NS_PER_MS
from mdtool.services.gateway.protocols.stomp import PATH
from mdtool.services.gateway.table import TABLE
from mdtool.services.security import Security

CLIENTS: Final = 2_000
CLASSES: Final = 10
KEYS: Final = 100_000
ROUNDS: Final = 15
TICKS: Final = 2_000_000
_CHECKS: Final = 5_000
_VALID: Final = dt.timedelta(days=1)
_TCP: Final = "serve-tcp tcp"
_ROLE: Final = {"read": ["A*", "M*"], "deny": ["X*"]}


async def measure(
    clients: int = CLIENTS,
    keys: int = KEYS,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
    ticks: int = TICKS,
) -> list[Figure]:
    """Return what TLS, a token, ten permission classes and many API keys cost.

    Ingest over TLS is beside ingest over TCP, and REST with a token beside REST without
    authentication. Updates to clients in ten permission classes are beside those to as many in one;
    a check of one of many API keys is beside that of the only one.
    """
    with tempfile.TemporaryDirectory(prefix="mdtool-") as folder:
        return [
            await _ingest(Path(folder), ticks, rounds),
            await _rest(Path(folder), rounds, round_s),
            *await _fanout(Path(folder), clients, rounds),
            _checks(Path(folder), keys, rounds),
        ]


async def _ingest(folder: Path, ticks: int, rounds: int) -> Figure:
    """Return the rate at which one connection's ticks come into bars, all in one process."""
    from mdtool.adapters.certificates import LOCAL_NAMES, Authority

    authority = Authority.make("mdtool bench", _VALID)
    authority.write(folder)
    authority.issue(folder, "server", LOCAL_NAMES, _VALID)
    settings = folder / "tls.toml"
    settings.write_text(f"[tls]\ncert = '{folder}/server.pem'\nkey = '{folder}/server.key'\n")
    trusted = ssl.create_default_context(cafile=folder / "ca.pem")
    options = ("--memory", "--only", "serve-tcp,aggregate")
    async with contextlib.AsyncExitStack() as servers:
        _, plain = await servers.enter_async_context(stack(*options))
        with _environment(CONFIG_VARIABLE, str(settings)):
            _, encrypted = await servers.enter_async_context(stack(*options))
        began_ns = time.time_ns()
        pairs = []
        for number in range(rounds + 1):
            data = frames(ticks, began_ns + number * ticks * NS_PER_MS)
            accepted = f"Accepted {ticks} "
            pairs.append(
                (
                    ticks / await asyncio.to_thread(send, encrypted[_TCP], data, accepted, trusted),
                    ticks / await asyncio.to_thread(send, plain[_TCP], data, accepted),
                )
            )
    return in_turns("auth_ingest_tls", "ticks/s", "plain TCP", pairs[1:])  # the first warms up


async def _rest(folder: Path, rounds: int, round_s: float) -> Figure:
    tokens = _write_keys(folder / "keys", 1)
    settings = folder / "mdtool.toml"
    settings.write_text(
        f"[auth]\nmode = '{REQUIRED}'\nkeys = '{folder}/keys'\n[roles.desk]\n"
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in _ROLE.items())
    )
    async with contextlib.AsyncExitStack() as stack:
        plain = await stack.enter_async_context(gateway_with_aggregate())
        with _environment(CONFIG_VARIABLE, str(settings)):
            secured = await stack.enter_async_context(gateway_with_aggregate(token=tokens[0]))
        body = await rest_answer(plain)
        loads = (
            rest_load(secured, await rest_answer(secured, tokens[0]), tokens[0]),
            rest_load(plain, body),
        )
        return await compare(
            "auth_rest", loads[0], "without authentication", loads[1], rounds, round_s
        )


async def _fanout(folder: Path, clients: int, rounds: int) -> Sequence[Figure]:
    raise_file_limit()
    _write_keys(folder / "keys", 1)
    tables = {f"r{number}": {**_ROLE, "deny": [f"X{number}"]} for number in range(CLASSES)}
    roles = Roles(tables)
    config = AuthConfig(mode=OPTIONAL, keys=str(folder / "keys"))
    total = 1 + 2 * rounds * 4
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for n_classes in (CLASSES, 1):
            principals = [roles.principal(f"p{n}", [f"r{n}"]) for n in range(n_classes)]
            server = Server(clients, Security(config, roles, {}), itertools.cycle(principals))
            address = await stack.enter_async_context(server.listening())
            destination = f"{TABLE['aggregates'].destination}*"
            await stack.enter_async_context(
                stomp_clients(address, PATH, clients, destination, total)
            )
            servers.append(server)
        figures = []
        allowed = [symbol for symbol in SYMBOLS if symbol[0] in "AM"]
        for name, symbols in (("auth_fanout", allowed), ("auth_fanout_one_symbol", allowed[:1])):
            pairs = [
                (
                    await servers[0].rate(servers[0].ways[0], symbols),
                    await servers[1].rate(servers[1].ways[0], symbols),
                )
                for _ in range(rounds)
            ]
            figures.append(in_turns(name, "messages/s", "one permission class", pairs))
    return figures


def _checks(folder: Path, keys: int, rounds: int) -> Figure:
    """Return how long a check of one of many API keys takes."""
    loads = []
    for count in (keys, 1):
        path = folder / f"keys-{count}"
        tokens = _write_keys(path, count)
        chosen = random.Random(0).choices(tokens, k=_CHECKS)  # noqa: S311 - no secret
        config = AuthConfig(mode=REQUIRED, keys=str(path))
        loads.append((Authenticator(config, Roles({"desk": _ROLE})), chosen))
    pairs = [(_check_us(*loads[0]), _check_us(*loads[1])) for _ in range(rounds)]
    return in_turns("auth_key_check", "us", "the only key", pairs, "lower")


def _check_us(authenticator: Authenticator, tokens: Sequence[str]) -> float:
    began_s = time.perf_counter()
    for token in tokens:
        authenticator.authenticate(token)
    return (time.perf_counter() - began_s) / len(tokens) * 1e6


def _write_keys(path: Path, count: int) -> Sequence[str]:
    """Write a file of API keys, and return their texts."""
    made = [ApiKey.make(f"p{number}", ["desk"], None) for number in range(count)]
    path.write_text("".join(json.dumps(asdict(key)) + "\n" for key, _ in made))
    return [text for _, text in made]


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Have processes that start within the block see a variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
