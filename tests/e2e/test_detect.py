"""`mdtool detect`: alerts of a stream of DBN, as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest
from aiohttp import web

from mdtool.services.http.listening import listening
from tests.support.aggregators import aggregator, message, tick
from tests.support.commands import completed, output_of
from tests.support.feed_sources import followers_of_trades
from tests.support.waiting import bounded

pytestmark = pytest.mark.usefixtures("no_settings")


def test_alerts_are_lines_whether_the_input_is_a_file_or_a_pipe(tmp_path):
    path = tmp_path / "quotes.dbn"
    output_of("simulate", "--schema", "mbp-1", "--duration", "2m", "-q", "-o", path)
    assert output_of("detect", path) == b""
    settings = tmp_path / "mdtool.toml"
    settings.write_text('[detect."AAPL"]\njump-min = 0\njump-z = 2\n')
    found = output_of("--config", settings, "detect", path)
    assert found == output_of("--config", settings, "detect", "-", stdin=path.read_bytes())
    alerts = [json.loads(line) for line in found.splitlines()]
    assert alerts
    assert {(alert["symbol"], alert["kind"]) for alert in alerts} == {("AAPL", "jump")}
    assert all(alert["begin"] <= alert["end"] and alert["score"] >= 2 for alert in alerts)


def test_a_missing_file_and_an_unknown_setting_are_one_line(tmp_path):
    missing = completed("detect", tmp_path / "none.dbn")
    assert missing.stderr.decode().count("\n") == 1
    assert missing.returncode == 1
    settings = tmp_path / "mdtool.toml"
    settings.write_text('[detect."*"]\njump = 1\n')
    wrong = completed("--config", settings, "detect", tmp_path / "none.dbn")
    assert wrong.stderr.decode().count("\n") == 1
    assert wrong.returncode == 2


def test_faults_of_a_simulated_market_are_found_and_labelled(tmp_path):
    labels = tmp_path / "labels.jsonl"
    market = ("simulate", "--schema", "mbp-1", "--duration", "4m", "-q", "-D")
    plan = "jump@2m,crossed@3m:5s/MSFT"
    stream = output_of(*market, "--inject", plan, "--labels", labels)
    faults = [json.loads(line) for line in labels.read_text().splitlines()]
    assert [(each["kind"], each["symbol"]) for each in faults] == [
        ("jump", "AAPL"),
        ("crossed", "MSFT"),
    ]
    alerts = [json.loads(line) for line in output_of("detect", "-", stdin=stream).splitlines()]
    assert [(each["kind"], each["symbol"]) for each in alerts] == [
        ("jump", "AAPL"),
        ("crossed", "MSFT"),
    ]
    assert all(
        fault["begin"] <= alert["begin"] for fault, alert in zip(faults, alerts, strict=True)
    )
    shown = completed(*market, "--inject", "jump@2m")
    assert json.loads(shown.stderr)["kind"] == "jump"
    wrong = completed(*market, "--labels", tmp_path / "none")
    assert (wrong.returncode, wrong.stderr.decode().count("\n")) == (2, 1)


def test_of_an_input_that_breaks_off_the_open_alerts_are_printed_before_the_error():
    market = ("simulate", "--schema", "mbp-1", "--duration", "4m", "-q", "-D")
    stream = output_of(*market, "--inject", "crossed@3m50s:20s", "--labels", os.devnull)
    whole = completed("detect", "-", stdin=stream)
    broken = completed("detect", "-", stdin=stream[:-10])
    assert json.loads(whole.stdout)["kind"] == "crossed"
    assert json.loads(broken.stdout)["begin"] == json.loads(whole.stdout)["begin"]
    assert b"ends inside a record" in broken.stderr
    assert (broken.returncode, broken.stderr.count(b"\n")) == (1, 1)


def test_an_input_in_which_nothing_is_judged_is_an_error(tmp_path):
    path = tmp_path / "trades.dbn"
    output_of("simulate", "--schema", "trades", "--duration", "1m", "-q", "-o", path)
    for selection in ((), ("--end", "1990-01-01"), ("--symbols", "AAPL")):
        found = completed("detect", path, *selection)
        assert found.stdout == b""
        if "1990-01-01" in selection:
            assert (found.returncode, found.stderr.count(b"\n")) == (1, 1)
            assert b"has no trades, quotes or bars to judge" in found.stderr
        else:
            assert (found.returncode, found.stderr) == (0, b"")


async def test_without_input_it_follows_a_market():
    received: asyncio.Queue[dict] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        received.put_nowait(json.loads(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with aggregator() as market, listening(app, "127.0.0.1", 0) as hook, bounded():
        with followers_of_trades() as followers:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mdtool", "detect", "--aggregator", market.address),
                *("--webhook", f"http://{hook}/", "--webhook-inside"),
                env=os.environ | {"MDTOOL_DETECT_WEBHOOK_SECRET": "s"},
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                await followers.acquire()
                ticks = [tick(10**8), tick(101, at_s=3_600)]
                await market.send(message(0, ticks, ["AAPL"]))
                begun = json.loads(await process.stdout.readline())
                assert (begun["kind"], begun["symbol"], begun["end"]) == ("band", "AAPL", None)
                await market.send(message(2, [tick(102, at_s=10_800)], ["AAPL"]))
                ended = json.loads(await process.stdout.readline())
                assert ended == begun | {"end": begun["begin"]}
                sent = [await received.get(), await received.get()]
                assert [(each["id"], each["end"]) for each in sent] == [
                    (begun["id"], None),
                    (begun["id"], begun["begin"]),
                ]
                process.terminate()
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()


def test_options_of_the_service_need_no_input_and_those_of_files_do(tmp_path):
    for arguments in (("--webhook", "http://x/", tmp_path / "a.dbn"), ("--quiet",)):
        wrong = completed("detect", *arguments)
        assert (wrong.returncode, wrong.stderr.decode().count("\n")) == (2, 1)
