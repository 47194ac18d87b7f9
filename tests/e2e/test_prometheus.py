"""Rules, alerts and the dashboard, by Prometheus itself; and what a live stack really exposes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import aiohttp
import pytest
import yaml

from mdtool.core.tcp import ReservedPort
from mdtool.services.families import COUNTER, FAMILIES
from tests.support.commands import completed
from tests.support.kafka_topics import url_of, write_ticks
from tests.support.manifests import NAMES, manifests, of_kind, pods
from tests.support.prometheus import configured, prometheus
from tests.support.requirements import needs
from tests.support.services import service
from tests.support.supervised import FREE_PORTS, serve
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
TICKS = 1_000
RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "mdtool.json").read_text("utf-8"))
EXPRESSIONS = [
    target["expr"].replace("$__rate_interval", "10s")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
OF_STACK = [each for each in EXPRESSIONS if "mdtool_kafka" not in each]
OF_KAFKA = [each for each in EXPRESSIONS if "mdtool_kafka" in each]
OF_MARKET = 'max_over_time(mdtool_ticks_total{service="aggregate"}[1m])'
"""It has a value also where the last scrape was not answered in time."""
PATIENCE_S = 90
NAMESPACE = "kubernetes.io/metadata.name"
METRIC = re.compile(r"\bmdtool_\w+")

pytestmark = pytest.mark.usefixtures("no_settings")


def promtool(*arguments, folder=RULES):
    command = [needs("promtool"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


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


def discovered(overlay):
    """The targets that Prometheus discovers, with the labels that Kubernetes' discovery gives.

    One is each port of a container: Debian's Prometheus is built without that discovery.
    """
    targets = []
    for number, (name, template) in enumerate(pods(manifests(overlay)).items(), 1):
        labels = {
            "__meta_kubernetes_namespace": "mdtool",
            "__meta_kubernetes_pod_name": f"{name}-0",
            "__meta_kubernetes_pod_phase": "Running",
        }
        for label, value in template["metadata"]["labels"].items():
            safe = re.sub(r"\W", "_", label)
            labels[f"__meta_kubernetes_pod_label_{safe}"] = value
        for port in template["spec"]["containers"][0]["ports"]:
            address = f"192.0.2.{number}:{port['containerPort']}"
            named = {"__meta_kubernetes_pod_container_port_name": port["name"]}
            targets.append({"targets": [address], "labels": {**labels, **named}})
    return targets


def admits_prometheus(policies, port):
    """Whether a policy lets the namespace of Prometheus reach a port of the pods."""
    return any(
        each.get("namespaceSelector", {}).get("matchLabels", {}).get(NAMESPACE) == "monitoring"
        and any(
            ports["port"] <= port <= ports.get("endPort", ports["port"]) for ports in rule["ports"]
        )
        for policy in policies
        for rule in policy["spec"].get("ingress", ())
        for each in rule.get("from", ())
    )


@pytest.mark.parametrize("overlay", NAMES)
def test_prometheus_scrapes_each_pod_once_under_the_name_of_its_service(
    overlay, tmp_path, free_port
):
    settings = yaml.safe_load((RULES / "kubernetes.yml").read_text("utf-8"))
    for job in settings["scrape_configs"]:
        [discovery] = job.pop("kubernetes_sd_configs")
        assert discovery["role"] == "pod"
        assert discovery["namespaces"] == {"names": ["mdtool"]}
        [selector] = discovery["selectors"]
        assert selector == {"role": "pod", "label": "app.kubernetes.io/name=mdtool"}
        job["file_sd_configs"] = [{"files": ["pods.json"]}]
    targets = discovered(overlay)
    failed = {**targets[0]["labels"], "__meta_kubernetes_pod_phase": "Failed"}
    ended = {"targets": ["192.0.2.99:9464"], "labels": failed}
    (tmp_path / "pods.json").write_text(json.dumps([ended, *targets]))
    (tmp_path / "mdtool.token").write_text("secret")
    shutil.copy(RULES / "rules.yml", tmp_path)
    (tmp_path / "kubernetes.yml").write_text(yaml.safe_dump(settings))
    done = promtool("check", "config", "kubernetes.yml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    names = set(pods(manifests(overlay)))
    with configured(tmp_path / "kubernetes.yml", free_port) as ask:

        def active():
            with contextlib.suppress(OSError):  # it has not started yet
                return ask("targets?state=active")["activeTargets"]
            return []

        wait_until(lambda: {each["labels"]["service"] for each in active()} == names)
        found = active()
    assert len(found) == len(names)
    policies = of_kind("NetworkPolicy", manifests(overlay)).values()
    for target in found:
        labels = target["labels"]
        address, service_name = labels.pop("instance"), labels["service"]
        assert labels == {
            "job": "mdtool",
            "namespace": "mdtool",
            "pod": f"{service_name}-0",
            "service": service_name,
        }
        assert target["scrapeUrl"] == f"http://{address}/metrics"
        assert admits_prometheus(policies, int(address.rpartition(":")[2]))
        # Only gateways are sent the token.
        is_gateway = service_name == "gateway"
        assert target["scrapePool"] == ("mdtool-gateway" if is_gateway else "mdtool")


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


def value_of(query, expression):
    """The sum of an expression's samples, 0 while there are none or Prometheus is starting."""
    with contextlib.suppress(OSError):
        return sum(float(each["value"][1]) for each in query(expression))
    return 0.0


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
                missing = list(OF_STACK)
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
    for name, address in targets.items():
        async with client.get(f"http://{address}/metrics") as answer:
            text = await answer.text()
        found = set(re.findall(r"^# TYPE (mdtool_\w+)", text, re.MULTILINE))
        own = {
            f"{metric}_total" if family.kind == COUNTER else metric
            for metric, family in FAMILIES.items()
            if name in family.services
        }
        assert found == own - {"mdtool_webhook_alerts_total"}, name  # there are none


def test_a_prometheus_that_scrapes_every_100_ms_does_no_harm(tmp_path, free_port, monkeypatch):
    needs("prometheus")
    with (
        stack(tmp_path, monkeypatch) as targets,
        prometheus(tmp_path, targets, free_port, every="100ms") as query,
    ):
        wait_until(lambda: value_of(query, "min(sum_over_time(up[1m]))") > 50)
        ticks = value_of(query, OF_MARKET)
        wait_until(lambda: value_of(query, OF_MARKET) > ticks > 0)


async def test_readers_of_kafka_say_how_far_behind_they_are(kafka, tmp_path, free_port):
    needs("prometheus")
    bus, store = url_of(kafka), f"sqlite:///{tmp_path}/trades.db"
    write_ticks(tmp_path / "ticks.jsonl", TICKS)
    with (
        service("serve-tcp", "--port", 0, "--bus", bus) as ingest,
        ReservedPort("127.0.0.1") as reserved,
        service("aggregate", "--port", 0, "--bus", bus, "--metrics-port", reserved.port),
        service("store", "--bus", bus, "--store", store, "--metrics-port", 0) as keeper,
        contextlib.ExitStack() as stack,
    ):
        targets = {"aggregate": f"127.0.0.1:{reserved.port}", "store": keeper.address}
        query = stack.enter_context(prometheus(tmp_path, targets, free_port))
        done = completed("send", tmp_path / "ticks.jsonl", ingest.address)
        assert done.returncode == 0, done.stderr
        for name in targets:
            committed = f'mdtool_committed_ticks_total{{service="{name}"}}'
            wait_until(lambda committed=committed: value_of(query, committed) == TICKS)
        wait_until(lambda: all(query(each) for each in OF_KAFKA))
        wait_until(lambda: query("sum(mdtool_kafka_lag) == 0"))
        wait_until(lambda: value_of(query, "min(sum by (service) (mdtool_kafka_position))") > 0)
        wait_until(lambda: value_of(query, "mdtool_store_bytes") > TICKS)
        names = {"aggregate": "aggregate --bus", "store": "store --bus"}
        async with aiohttp.ClientSession() as client:
            await check_families(client, {names[name]: where for name, where in targets.items()})
