"""The order book's services as processes: under the supervisor, killed, in a browser, misused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from mdtool.core.units import NS_PER_S
from mdtool.engine.simulate import Exchange
from tests.support.browser import chromium
from tests.support.recordings import pictures, record
from tests.support.supervised import serve

SAMPLE = Path(__file__).parents[2] / "sample_data" / "mbo.dbn.zst"

pytestmark = pytest.mark.usefixtures("no_settings")

INSTRUMENTS = Exchange().instruments
ONLY = ["--only", "gateway,book,replay-dbn"]
FREE_PORTS = [
    *("--gateway-port", "0", "--book-port", "0"),
    *("--replay-dbn-port", "0", "--replay-dbn-data-port", "0"),
]


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "day.dbn"
    return path, record(path, 30_000)


def ask(address: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """The status and the body of an answer."""
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def when(address: str, condition: Callable[[dict], object]) -> dict:
    """The services' statuses, once the receiver's is so."""
    while True:
        _, body = ask(address, "/api/microservices/status")
        told = json.loads(body)
        if condition(told["receiver"]):
            return told


def until(address: str, **wanted) -> dict:
    """The services' statuses, once the receiver's says so."""
    return when(address, lambda told: wanted.items() <= told.items())


def has_begun(receiver: dict) -> bool:
    return receiver.get("records", 0) > 0


def has_resumed(times: int) -> Callable[[dict], bool]:
    """Whether a receiver has resumed so often, or needs to no more."""
    return lambda receiver: receiver.get("resumed") == times or receiver.get("state") == "done"


def final_states(address: str) -> dict:
    _, body = ask(address, "/api/order-book?last=true")
    states = {state["symbol"]: state for state in map(json.loads, body.splitlines())}
    for state in states.values():
        assert state.pop("final")
        del state["records"], state["last_trade"]
    return states


def speed_of(records, duration_s: float) -> str:
    """The speed at which records take so long."""
    market_s = (int(records["ts_recv"][-1]) - int(records["ts_recv"][0])) / NS_PER_S
    return f"{market_s / duration_s:g}"


def test_a_book_is_served_from_start_to_end(day):
    path, records = day
    with serve("all", "--book", str(path), "-J", *ONLY, *FREE_PORTS) as services:
        gateway = services.addresses(3)["gateway"]
        assert ask(gateway, "/api/start-streaming", "POST")[0] == 200
        until(gateway, state="done", records=len(records))
        assert final_states(gateway) == pictures(records, INSTRUMENTS)
        _, lines = ask(gateway, "/api/order-book?depth=1")
        assert lines.count(b"\n") == len(records)
        assert services.end(signal.SIGTERM) == 0
    said = "".join(services.lines)
    assert "Traceback" not in said
    assert "killed" not in said


@pytest.mark.parametrize("victims", [["replay-dbn"], ["replay-dbn", "replay-dbn"]])
def test_a_sender_that_is_killed_is_resumed(day, victims):
    path, records = day
    speed = speed_of(records, 3.0)
    options = ["--processes", "--book", str(path), "--speed", speed, "-J", *ONLY, *FREE_PORTS]
    with serve("all", *options) as services:
        gateway = services.addresses(3)["gateway"]
        assert ask(gateway, "/api/start-streaming", "POST")[0] == 200
        when(gateway, has_begun)
        for number, victim in enumerate(victims):
            when(gateway, has_resumed(number))
            os.kill(services.pids()[victim], signal.SIGKILL)
            services.heard(rf"WARNING {victim} was killed by SIGKILL")
            services.heard(rf"{victim}: running again")
        told = until(gateway, state="done")
        assert told["receiver"]["records"] == len(records)
        assert told["receiver"]["skipped"] == 0
        assert final_states(gateway) == pictures(records, INSTRUMENTS)
        _, lines = ask(gateway, "/api/order-book?depth=1")
        assert lines.count(b"\n") == len(records)


def test_a_receiver_that_is_killed_starts_again_and_ends_the_same(day):
    path, records = day
    speed = speed_of(records, 2.0)
    options = ["--processes", "--book", str(path), "--speed", speed, "-J", *ONLY, *FREE_PORTS]
    with serve("all", *options) as services:
        gateway = services.addresses(3)["gateway"]
        assert ask(gateway, "/api/start-streaming", "POST")[0] == 200
        when(gateway, has_begun)
        os.kill(services.pids()["book"], signal.SIGKILL)
        services.heard(r"book: running again")
        until(gateway, state="idle")
        assert ask(gateway, "/api/start-streaming", "POST")[0] == 200
        until(gateway, state="done", records=len(records))
        assert final_states(gateway) == pictures(records, INSTRUMENTS)


def test_a_real_file_comes_to_what_is_known_of_it(real_data):
    path = real_data / "CLX5_mbo.dbn"
    with serve("all", "--book", str(path), "-J", *ONLY, *FREE_PORTS) as services:
        gateway = services.addresses(3)["gateway"]
        ask(gateway, "/api/start-streaming", "POST")
        status = until(gateway, state="done")["receiver"]
        state = json.loads(ask(gateway, "/api/order-book?last=true&depth=1")[1])
    assert status["records"] == 38_212
    assert state["stats"] == {"total_orders": 147, "bid_levels": 61, "ask_levels": 52}
    assert state["bbo"] == {
        "bid": {"price": "65.4", "size": 1, "count": 1},
        "ask": {"price": "64.78", "size": 3, "count": 1},
    }
    assert state["partial"]
    assert status["partial"]


def test_any_dbn_tool_reads_the_data_port(day):
    path, records = day
    with serve("all", "--book", str(path), "-J", *ONLY, *FREE_PORTS) as services:
        said = [json.loads(services.process.stdout.readline()) for _ in range(3)]
        addresses = {entry["service"]: entry["addresses"] for entry in said}
        assert ask(addresses["replay-dbn"]["http"], "/start-streaming", "POST")[0] == 200
        host, _, port = addresses["replay-dbn"]["dbn"].rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            shown = subprocess.run(
                [sys.executable, "-m", "mdtool", "book", "-", "--json"],
                stdin=connection.makefile("rb", buffering=0),
                capture_output=True,
                check=True,
            ).stdout
    assert {state["symbol"]: state["stats"] for state in map(json.loads, shown.splitlines())} == {
        symbol: state["stats"] for symbol, state in pictures(records, INSTRUMENTS).items()
    }


def mdtool(*arguments: str) -> tuple[int, str]:
    """The exit status and what is said on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "mdtool", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("option", ["--port", "--data-port"])
def test_a_taken_port_of_the_sender_ends_it_with_3(day, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ports = {"--port": "0", "--data-port": "0"} | {option: port}
        options = [text for pair in ports.items() for text in pair]
        status, said = mdtool("replay-dbn", "--serve", str(day[0]), *options)
    assert status == 3
    assert said.startswith(f"mdtool: port {port} on 127.0.0.1 is in use")
    assert option in said
    assert len(said.splitlines()) == 1


def test_a_taken_port_of_the_receiver_ends_it_with_3():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, said = mdtool("book", "--serve", "--port", port)
    assert status == 3
    assert f"port {port} on 127.0.0.1 is in use" in said


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["replay-dbn", "--serve"], 2, "Missing argument"),
        (["replay-dbn", "--serve", "nowhere.dbn"], 3, "nowhere.dbn: no such file"),
        (["replay-dbn", "--serve", "."], 3, "text.dbn: is not a DBN stream"),
        (["replay-dbn", "--serve", "-"], 3, "stdin: can be read only once"),
        (["replay-dbn", "--serve", "text.dbn"], 3, "is not a DBN stream"),
        (["replay-dbn", "--serve", "f.dbn", "--json"], 2, "--json: does not go with --serve"),
        (["replay-dbn", "--serve", "f.dbn", "-o", "x.dbn"], 2, "does not go with --serve"),
        (
            ["replay-dbn", "f.dbn", "--data-port", "1"],
            2,
            "--data-port: is for the service",
        ),
        (["replay-dbn", "--serve", "f.dbn", "--speed", "-1"], 2, "--speed"),
        (
            ["replay-dbn", "--serve", "f.dbn", "--port", "65536"],
            2,
            "--port: 65536 is not from 0 to 65535",
        ),
        (["book", "--serve", "f.dbn"], 2, "INPUT: does not go with --serve"),
        (["book", "--serve", "--live"], 2, "--live: does not go with --serve"),
        (["book", "f.dbn", "--sender", "x:1"], 2, "--sender: is for the service; give --serve"),
        (["book", "--serve", "--sender", "nowhere"], 2, "is not an address"),
        (["book", "--serve", "--history-records", "5"], 2, "history-records"),
        (["serve", "all", "--book", "nowhere.dbn"], 1, "nowhere.dbn: no such file"),
    ],
)
def test_wrong_usage_is_one_line(arguments, status, why, tmp_path):
    (tmp_path / "text.dbn").write_text("no records here")
    answered, said = mdtool(*arguments)
    assert answered == status
    assert why in said
    assert len(said.splitlines()) == 1


async def test_the_page_starts_and_shows_the_book(day):
    path, records = day
    expected = pictures(records, INSTRUMENTS)
    with serve("all", "--book", str(path), "-J", *ONLY, *FREE_PORTS) as services:
        gateway = (await asyncio.to_thread(services.addresses, 3))["gateway"]
        async with chromium() as tab:
            await tab.open(f"http://{gateway}/book")
            await tab.until("document.querySelector('#sender dd').innerText === 'idle'")
            assert "Press Start" in await tab.text("#book")
            await tab.click("#start")
            await tab.until(
                "document.querySelector('#receiver dd').innerText === 'has the whole file'"
            )
            await tab.until("document.querySelectorAll('#levels tr').length === 10")
            symbol = await tab.text("#symbol")
            await tab.until(
                f"document.querySelector('#progress dd').innerText === '{len(records):,}'"
            )
            shown = expected[symbol]
            rows = [
                [
                    *(bid["count"], bid["size"], float(bid["price"])),
                    *(float(ask["price"]), ask["size"], ask["count"]),
                ]
                for bid, ask in zip(
                    *(shown["levels"][side] for side in ("bids", "asks")), strict=True
                )
            ]
            # The state is shown before the book that belongs to it has come.
            await tab.until(
                "JSON.stringify([...document.querySelectorAll('#levels tr')].map((row) =>"
                " [...row.cells].map((cell) => Number(cell.innerText.replaceAll(',', '')))))"
                f" === JSON.stringify({json.dumps(rows)})"
            )
            assert float(await tab.text("#bid")) == float(shown["bbo"]["bid"]["price"])
            assert float(await tab.text("#ask")) == float(shown["bbo"]["ask"]["price"])
            other = next(name for name in expected if name != symbol)
            await tab.run(
                "{ const select = document.getElementById('instrument');"
                f"select.value = '{other}'; }}"
            )
            await tab.until(f"document.getElementById('symbol').innerText === '{other}'")
            assert await tab.run("document.getElementById('partial').hidden")
            assert tab.complaints == []


async def test_the_page_pauses_changes_the_speed_and_stops():
    with serve(
        "all", "--book", str(SAMPLE), "--speed", "0.1", "-J", *ONLY, *FREE_PORTS
    ) as services:
        gateway = (await asyncio.to_thread(services.addresses, 3))["gateway"]
        state = "document.querySelector('#sender dd').innerText"
        async with chromium() as tab:
            await tab.open(f"http://{gateway}/book")
            await tab.until(f"{state} === 'idle'")
            await tab.click("#start")
            await tab.until(f"{state} === 'streaming'")
            assert await tab.text("#file") == SAMPLE.name
            await tab.until("document.getElementById('part').value > 0")
            await tab.click("#pause")
            await tab.until(f"{state} === 'paused'")
            assert 0 < await tab.run("document.getElementById('part').value") < 1
            await tab.click("#pause")
            await tab.until(f"{state} === 'streaming'")
            await tab.run(
                "{ const speed = document.getElementById('speed'); speed.value = '1';"
                "speed.dispatchEvent(new Event('change')); }"
            )
            await tab.until("document.getElementById('progress').innerText.includes('\\n1\\u00d7')")
            await tab.click("#stop")
            await tab.until(f"{state} === 'stopped before the end of the file'")
            await tab.until("!document.getElementById('start').hidden")
            received = "document.querySelector('#receiver dd').innerText"
            await tab.until(f"{received} === 'stopped: the book is as of the last record received'")
            assert tab.complaints == []


async def test_the_page_says_when_its_services_are_unavailable():
    with serve("all", "--only", "gateway", "-J", "--gateway-port", "0") as services:
        gateway = (await asyncio.to_thread(services.addresses, 1))["gateway"]
        async with chromium() as tab:
            await tab.open(f"http://{gateway}/book")
            unreachable = "sender and the receiver cannot be reached"
            await tab.until(
                f"document.getElementById('notice').textContent.includes('{unreachable}')"
            )
            assert "mdtool serve all --book FILE" in await tab.text("#notice")
            assert await tab.run("document.getElementById('start').disabled")
            assert await tab.text("#sender dd") == "unavailable"
