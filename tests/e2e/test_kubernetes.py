"""The manifests of deploy/kubernetes: valid, restricted, consistent, with settings that exist."""

from __future__ import annotations

import copy
import itertools
import json
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest

from mdtool.adapters.kafka.address import KafkaAddress
from tests.support.commands import completed
from tests.support.manifests import NAMES, manifests, of_kind, pods, violations

VERSIONS = ("1.31", "1.34", "1.37")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
COMPONENT = "app.kubernetes.io/component"
FORBIDDEN = {
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "volume hostPath": lambda pod: pod["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    "sysctls": lambda pod: pod["securityContext"].update(sysctls=[{"name": "a", "value": "b"}]),
    "privileged": lambda pod: _secured(pod).update(privileged=True),
    "procMount": lambda pod: _secured(pod).update(procMount="Unmasked"),
    "allowPrivilegeEscalation": lambda pod: _secured(pod).pop("allowPrivilegeEscalation"),
    "runAsNonRoot": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda pod: _secured(pod).update(runAsUser=0),
    "seccompProfile": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "capabilities": lambda pod: _secured(pod).update(capabilities={"drop": ["NET_RAW"]}),
    "hostPort": lambda pod: pod["containers"][0].update(ports=[{"hostPort": 80}]),
    "host of a probe": lambda pod: pod["containers"][0].update(
        livenessProbe={"httpGet": {"host": "127.0.0.1", "path": "/", "port": 1}}
    ),
}
"""Changes of a pod that the restricted policy rejects, by what it rejects in them."""

pytestmark = pytest.mark.usefixtures("no_settings")
in_each_form = pytest.mark.parametrize("overlay", NAMES)


def _secured(pod):
    return pod["containers"][0]["securityContext"]


@pytest.mark.parametrize("version", VERSIONS)
@in_each_form
def test_manifests_are_valid(overlay, version):
    for each in manifests(overlay):
        kubernetes_validate.validate(each, version, strict=True)


@in_each_form
def test_pods_keep_to_the_restricted_policy(overlay):
    [namespace] = of_kind("Namespace", manifests(overlay)).values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in pods(manifests(overlay)).items():
        assert violations(template["spec"]) == set(), name


@pytest.mark.parametrize("rejected", FORBIDDEN)
def test_the_check_of_the_policy_finds_what_it_rejects(rejected):
    pod = copy.deepcopy(pods(manifests("single"))["gateway"]["spec"])
    FORBIDDEN[rejected](pod)
    assert violations(pod) == {rejected}


@in_each_form
def test_pods_write_nothing_know_no_account_and_say_what_they_use(overlay):
    for name, template in pods(manifests(overlay)).items():
        pod = template["spec"]
        [container] = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False, name
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
        assert set(container["resources"]["limits"]) == {"memory"}, name
        # Secrets are files, so that no variable of a process shows them.
        assert "env" not in container, name
        assert {"name": "secrets", "secret": {"secretName": "mdtool", "defaultMode": 0o440}} in pod[
            "volumes"
        ]


@in_each_form
def test_what_restarts_a_pod_asks_no_other_service(overlay):
    for name, template in pods(manifests(overlay)).items():
        [container] = template["spec"]["containers"]
        named = {port["name"] for port in container.get("ports", ())}
        if not named:  # it listens nowhere
            assert not set(PROBES) & set(container), name
            continue
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] == "/livez", name
            assert container[probe]["httpGet"]["port"] in named, name


@in_each_form
def test_names_and_ports_meet(overlay):
    """Services, budgets, autoscalers and policies select pods that exist, with their ports."""
    objects = manifests(overlay)
    running = pods(objects)
    ports = {
        name: {
            each["name"]: each["containerPort"]
            for each in pod["spec"]["containers"][0].get("ports", ())
        }
        for name, pod in running.items()
    }
    for name, service in of_kind("Service", objects).items():
        labels = running[name]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        for port in service["spec"]["ports"]:
            assert ports[name][port["targetPort"]] == port["port"]
    for name, budget in of_kind("PodDisruptionBudget", objects).items():
        labels = running[name]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    scaled = of_kind("HorizontalPodAutoscaler", objects)
    for name, scaler in scaled.items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in of_kind("Deployment", objects)[name]["spec"]
    for name, deployment in of_kind("Deployment", objects).items():
        if name in scaled or deployment["spec"]["replicas"] > 1:
            assert name in of_kind("PodDisruptionBudget", objects)
            assert running[name]["spec"]["topologySpreadConstraints"]
    assert _admitted(objects) == _connections(overlay)


def _admitted(objects):
    """Which component may connect to which port of which other, by the policies for both."""
    policies = of_kind("NetworkPolicy", objects).values()
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in [
        policy["spec"] for policy in policies
    ]
    names = pods(objects)
    found = set()
    for client, server in itertools.permutations(names, 2):
        sent = _allowed(policies, client, server, "egress", "to")
        received = _allowed(policies, server, client, "ingress", "from")
        found |= {(client, server, port) for port in sent & received}
    return found


def _allowed(policies, of, peer, way, side):
    """The ports that policies of one component allow with another."""
    ports = set()
    for policy in policies:
        if not _selects(policy["spec"]["podSelector"], of):
            continue
        for rule in policy["spec"].get(way, ()):
            peers = rule.get(side)
            is_named = peers is None or any(
                "podSelector" in each and _selects(each["podSelector"], peer) for each in peers
            )
            if is_named:
                ports |= {each["port"] for each in rule["ports"]}
    return ports


def _selects(selector, component):
    labels = {COMPONENT: component, "app.kubernetes.io/name": "mdtool"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels[each["key"]] in each["values"] for each in selector.get("matchExpressions", ())
    )


def _connections(overlay):
    """Which component connects to which port of which other, by their settings."""
    settings = tomllib.loads(_settings(overlay)[1])
    found = set()
    for client in ("serve-tcp", "vwap", "gateway"):
        for key in ("aggregator", "vwap"):
            if key in settings[client]:
                server, _, port = settings[client][key].partition(":")
                found.add((client, server, int(port)))
    return found


def _settings(overlay):
    """The variables of an overlay, and the text of its settings file."""
    maps = of_kind("ConfigMap", manifests(overlay))
    content = {name.rpartition("-")[0]: each["data"] for name, each in maps.items()}
    return content["mdtool-variables"], content["mdtool-settings"]["mdtool.toml"]


@in_each_form
def test_settings_are_those_of_the_services(overlay, tmp_path, monkeypatch):
    variables, text = _settings(overlay)
    assert tomllib.loads(text)["auth"]["mode"] == "required"
    (tmp_path / "mdtool.toml").write_text(text)
    for name, value in variables.items():
        if name == "MDTOOL_CONFIG":
            assert value == "/etc/mdtool/mdtool.toml"
            monkeypatch.setenv(name, str(tmp_path / "mdtool.toml"))
        elif name.endswith("_FILE"):
            assert value.startswith("/run/secrets/mdtool/")
            secret = tmp_path / Path(value).name
            secret.write_text("postgresql://mdtool:secret@postgres/mdtool\n")
            monkeypatch.setenv(name, str(secret))
        else:
            monkeypatch.setenv(name, value)
    for name, template in pods(manifests(overlay)).items():
        [container] = template["spec"]["containers"]
        [section, *_] = container["args"]
        done = completed("config", section, "-J")
        assert (done.returncode, done.stderr) == (0, b""), name
        values = {
            each["setting"]: each["value"] for each in map(json.loads, done.stdout.splitlines())
        }
        ports = {port["containerPort"] for port in container.get("ports", ())}
        assert ports == {values[key] for key in ("port", "metrics-port") if values.get(key)}, name


def test_one_aggregator_has_the_volume():
    objects = manifests("single")
    aggregate = of_kind("Deployment", objects)["aggregate"]
    assert aggregate["spec"]["strategy"] == {"type": "Recreate"}
    [claim] = of_kind("PersistentVolumeClaim", objects)
    mounts = aggregate["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    volumes = aggregate["spec"]["template"]["spec"]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": claim}} in volumes
    [data] = [mount["mountPath"] for mount in mounts if mount["name"] == "data"]
    variables, _ = _settings("single")
    assert variables["MDTOOL_AGGREGATE_STORE"].startswith(f"sqlite:///{data}/")


def test_aggregators_scale_to_the_partitions():
    variables, _ = _settings("kafka")
    [bus] = {value for name, value in variables.items() if name.endswith("_BUS")}
    scalers = of_kind("HorizontalPodAutoscaler", manifests("kafka"))
    assert scalers["aggregate"]["spec"]["maxReplicas"] == KafkaAddress.parse(bus).partitions
