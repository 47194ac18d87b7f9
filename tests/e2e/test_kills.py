"""Services killed with SIGKILL while ticks are sent: every tick counts once, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.core.tcp import ReservedPort
from tests.support.processes import ChildProcess
from tests.support.supervised import FREE_PORTS, Watch, needs_pidfd, serve

ONLY = ["--only", "serve-tcp,aggregate,gateway"]
SYMBOLS = ("AAPL", "MSFT", "GOOG")
NOON_NS = 1_735_214_400 * 10**9
TICKS = 40_000
RATE = 8_000
PATIENCE_S = 200.0

pytestmark = [
    pytest.mark.usefixtures("no_settings"),
    needs_pidfd,
]


class Input:
    """Ticks of a seed, as a file of JSON lines, and what they come to."""

    def __init__(self, folder, seed):
        chance = random.Random(seed)
        self.path = folder / "ticks.jsonl"
        self.sessions = {}
        with self.path.open("w") as file:
            for number in range(TICKS):
                symbol, cents = chance.choice(SYMBOLS), chance.randrange(10_000, 20_000)
                volume, at_ns = chance.randrange(1, 1_000), NOON_NS + number * 10**6
                tick = {"symbol": symbol, "price": cents / 100, "volume": volume}
                file.write(json.dumps(tick | {"exchange_timestamp": at_ns}) + "\n")
                self._add(symbol, cents * 10**7, volume, at_ns)

    def _add(self, symbol, price, volume, at_ns):
        was = self.sessions.get(symbol, (price, price, price, price, 0, 0, at_ns))
        opened, high, low, _, before, count, _ = was
        self.sessions[symbol] = (
            *(opened, max(high, price), min(low, price), price),
            *(before + volume, count + 1, at_ns),
        )


class Sender:
    """`mdtool send` at work."""

    def __init__(self, ticks, address, *options):
        command = ["send", str(ticks.path), address, "--rate", str(RATE), "--quiet", *options]
        self.process = ChildProcess(
            [sys.executable, "-m", "mdtool", *command], stdout=subprocess.PIPE, text=True
        )

    def acknowledged(self):
        """Wait for its end, and return what it was told."""
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_exc_info):
        self.process.kill()
        self.process.communicate()


def stored(history):
    """How many trades are in the store, as far as it can be read now."""
    try:
        return sum(total.trade_count for total in history.symbols())
    except StoreUnavailableError:
        return 0


def wait_until_stored(history, count):
    """Look until so many trades are there, or all."""
    ends = time.monotonic() + PATIENCE_S
    while (found := stored(history)) < min(count, TICKS):
        assert time.monotonic() < ends, f"{found} trades stored, and no more"
    return found


def kill(services, name):
    """Kill a service, and wait until the supervisor has started it again."""
    killed = services.pids()[name]
    os.kill(killed, signal.SIGKILL)
    while services.pids()[name] == killed:
        services.heard(rf"{name}: started as process")


def check_gateway(address, ticks):
    """See that the gateway answers what the ticks come to, once it has caught up."""
    for symbol, (opened, high, low, close, volume, _, at_ns) in ticks.sessions.items():
        wanted = {
            "symbol": symbol,
            "open": opened / 1e9,
            "high": high / 1e9,
            "low": low / 1e9,
            "close": close / 1e9,
            "volume": str(volume),
            "timestamp": str(at_ns // 10**6),
        }
        ends = time.monotonic() + PATIENCE_S
        answer = None
        while answer != wanted:
            assert time.monotonic() < ends, f"{answer} is not {wanted}"
            try:
                url = f"http://{address}/api/v1/marketdata/{symbol}"
                with urllib.request.urlopen(url, timeout=10) as response:
                    answer = json.load(response)
            except (urllib.error.URLError, OSError):
                continue


def check_store(url, ticks):
    """See that all that is kept is what the ticks come to: trades, sessions, bars."""
    with open_store(url) as store:
        saved = store.load(10, 0)
        sessions = zip(saved.symbols, saved.sessions.tolist(), strict=True)
        assert {symbol: row[:7] for symbol, row in sessions} == ticks.sessions
        counted = {total.symbol: total.trade_count for total in store.symbols()}
        assert counted == {symbol: session[5] for symbol, session in ticks.sessions.items()}
        assert store.recount() == []
        in_bars = Counter()
        for symbol in ticks.sessions:
            in_bars[symbol] += int(store.bars(symbol, 10**9, 1_000)["count"].sum())
        for bar in saved.bars:
            if bar["interval_ns"] == 10**9 and bar["is_open"]:
                in_bars[saved.symbols[bar["symbol"]]] += int(bar["count"])
        assert in_bars == counted


def run(folder, kills, *options, seed, form=("--processes",)):
    """Send ticks while services are killed, and compare; return what the sender was told."""
    chance = random.Random(seed)
    victims = list(Counter(kills).elements())
    chance.shuffle(victims)
    ticks, url = Input(folder, seed), f"sqlite:///{folder}/data/mdtool.db"
    arguments = ["all", "-J", *form, *ONLY, "--data-dir", str(folder / "data"), *FREE_PORTS]
    with serve(*arguments) as services, open_history(url) as history:
        addresses = services.addresses(3)
        with Sender(ticks, addresses["serve-tcp"], *options) as sender:
            count = 0
            for name in victims:
                count = wait_until_stored(history, count + chance.randrange(1, 3_000))
                kill(services, name)
            said = sender.acknowledged()
        check_gateway(addresses["gateway"], ticks)
        services.end(signal.SIGINT)
    check_store(url, ticks)
    return said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_service_is_killed_each_tick_counts_once(tmp_path):
    said = run(tmp_path, {"aggregate": 4, "serve-tcp": 4, "gateway": 2}, seed=1)
    assert f"is committed up to {TICKS}" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_when_all_services_are_killed_at_once_each_tick_counts_once(tmp_path):
    said = run(tmp_path, {"services": 6}, seed=5, form=())
    assert f"is committed up to {TICKS}" in said


@pytest.mark.timeout(900)
def test_a_plain_client_loses_nothing_as_long_as_serve_tcp_lives(tmp_path):
    said = run(tmp_path, {"aggregate": 4, "gateway": 2}, "--plain", seed=3)
    assert said.startswith(f"Accepted {TICKS} ticks, refused 0")


@pytest.fixture
def lasting_ports():
    """Options that give each service a port of its own, the same at each start."""
    options = []
    with contextlib.ExitStack() as stack:
        for name in ("serve-tcp", "aggregate", "gateway"):
            held = stack.enter_context(ReservedPort("127.0.0.1"))
            options += [f"--{name}-port", str(held.port)]
        yield options


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", [(), ("--processes",)], ids=["one process", "processes"])
def test_a_supervisor_that_is_killed_resumes_when_it_is_started_again(
    tmp_path, lasting_ports, form
):
    chance = random.Random(4)
    ticks, url = Input(tmp_path, 4), f"sqlite:///{tmp_path}/data/mdtool.db"
    arguments = ["all", "-J", *form, *ONLY, "--data-dir", str(tmp_path / "data"), *lasting_ports]
    sender, count = None, 0
    try:
        for kills_left in reversed(range(4)):
            with serve(*arguments) as services, open_history(url) as history:
                addresses = services.addresses(3)
                sender = sender or Sender(ticks, addresses["serve-tcp"])
                if kills_left:
                    count = wait_until_stored(history, count + chance.randrange(1, 8_000))
                    with Watch(services.pids().values()) as watch:
                        services.process.kill()
                        assert watch.all_ended(PATIENCE_S)
                else:
                    assert f"is committed up to {TICKS}" in sender.acknowledged()
                    check_gateway(addresses["gateway"], ticks)
                    services.end(signal.SIGINT)
    finally:
        if sender is not None:
            sender.__exit__()
    check_store(url, ticks)
