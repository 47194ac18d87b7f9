"""Rules, alerts and the dashboard, by Prometheus itself; and what a live stack really exposes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import aiohttp
import pytest

from mdtool.services.families import COUNTER, FAMILIES
from tests.support.requirements import needs
from tests.support.supervised import FREE_PORTS, serve

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "mdtool.json").read_text("utf-8"))
EXPRESSIONS = [
    target["expr"].replace("$__rate_interval", "4s")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
PATIENCE_S = 90
METRIC = re.compile(r"\bmdtool_\w+")

pytestmark = pytest.mark.usefixtures("no_settings")


def promtool(*arguments):
    command = [needs("promtool"), *arguments]
    return subprocess.run(command, cwd=RULES, capture_output=True, text=True, check=False)


def scraped(name):
    """The name of a family, of the name of one of its series."""
    plain = re.sub(r"_(total|bucket|count|sum)$", "", name)
    return plain if plain in FAMILIES else name


def test_rules_fire_when_they_should():
    for arguments in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    alerts = set(re.findall(r"alert: (\w+)", (RULES / "rules.yml").read_text("utf-8")))
    tested = set(re.findall(r'alertname="(\w+)"', (RULES / "rules_test.yml").read_text("utf-8")))
    assert tested == alerts


def test_rules_and_dashboard_name_metrics_that_exist():
    text = (RULES / "rules.yml").read_text("utf-8") + "\n".join(EXPRESSIONS)
    names = {name for name in METRIC.findall(text) if not text.count(f"{name}:")}
    assert len(names) > 30
    assert {name for name in names if scraped(name) not in FAMILIES} == set()


@contextlib.contextmanager
def stack(folder, monkeypatch):
    """A stack with a simulated market, a store and metrics; the address of each one's metrics."""
    for name in ("SERVE_TCP", "AGGREGATE", "VWAP"):
        monkeypatch.setenv(f"MDTOOL_{name}_METRICS_PORT", "0")
    store = f"sqlite:///{folder}/s.db?synchronous=normal"
    with serve("all", "-J", "--simulate", "--store", store, *FREE_PORTS) as services:
        told = [json.loads(services.process.stdout.readline()) for _ in range(4)]
        addresses = {entry["service"]: entry["addresses"] for entry in told}
        yield {
            name: each["http"] if name == "gateway" else each["metrics"]
            for name, each in addresses.items()
        }


@contextlib.contextmanager
def prometheus(folder, targets, port):
    """A Prometheus that scrapes the targets; it yields a function that queries it."""
    jobs = [
        f"      - targets: ['{address}']\n        labels: {{service: {name}}}\n"
        for name, address in targets.items()
    ]
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, scrape_timeout: 500ms}\nscrape_configs:\n"
        f"  - job_name: mdtool\n    static_configs:\n{''.join(jobs)}"
    )
    command = [
        needs("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = (folder / "prometheus.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)

    def query(expression):
        text = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{text}") as answer:
            return json.load(answer)["data"]["result"]

    try:
        yield query
    finally:
        process.terminate()
        process.wait()
        log.close()


async def test_every_expression_of_the_dashboard_has_data_of_a_live_stack(
    tmp_path, free_port, monkeypatch
):
    needs("prometheus")
    with (
        stack(tmp_path, monkeypatch) as targets,
        prometheus(tmp_path, targets, free_port) as query,
    ):
        gateway = targets["gateway"]
        async with aiohttp.ClientSession(f"http://{gateway}") as client:
            follow = client.ws_connect("/stream")
            async with follow as socket:
                every = {"op": "subscribe", "id": 1, "channel": "aggregates", "symbols": ["*"]}
                await socket.send_json(every)
                ends_s = time.monotonic() + PATIENCE_S
                missing = list(EXPRESSIONS)
                while missing and time.monotonic() < ends_s:
                    async with client.get("/api/v2/trades/AAPL") as answer:
                        await answer.read()
                    await socket.receive()
                    with contextlib.suppress(OSError):  # it has not started yet
                        missing = [each for each in missing if not query(each)]
                assert missing == []
                await check_families(client, targets)


async def check_families(client, targets):
    """See that services expose what the table says that they have, and nothing else."""
    for service, address in targets.items():
        async with client.get(f"http://{address}/metrics") as answer:
            text = await answer.text()
        found = set(re.findall(r"^# TYPE (mdtool_\w+)", text, re.MULTILINE))
        own = {
            f"{name}_total" if family.kind == COUNTER else name
            for name, family in FAMILIES.items()
            if service in family.services
        }
        assert found == own - {"mdtool_webhook_alerts_total"}, service  # there are none
