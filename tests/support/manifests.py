"""What deploy/kubernetes makes of an overlay, and what its pods may do."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import yaml

from tests.support.requirements import needs

OVERLAYS = Path(__file__).parents[2] / "deploy" / "kubernetes" / "overlays"
NAMES = sorted(path.name for path in OVERLAYS.iterdir())
_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
}


@functools.cache
def _text(overlay: str) -> str:
    command = [needs("kustomize"), "build", OVERLAYS / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def manifests(overlay: str) -> list[dict]:
    """Return the objects of an overlay, each anew."""
    return list(yaml.safe_load_all(_text(overlay)))


def of_kind(kind: str, objects: list[dict]) -> dict[str, dict]:
    """Return the objects of a kind, by their names."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: list[dict]) -> dict[str, dict]:
    """Return the template of the pods of each deployment, by its name."""
    deployments = of_kind("Deployment", objects)
    return {name: each["spec"]["template"] for name, each in deployments.items()}


def violations(pod: dict) -> set[str]:
    """Return what the restricted policy rejects in the spec of a pod.

    Source: "Pod Security Standards" in Kubernetes' documentation, Baseline and Restricted.
    """
    whole = pod.get("securityContext", {})
    found = {name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)}
    found |= {f"volume {kind}" for each in pod.get("volumes", ()) for kind in _kinds(each)}
    found |= {"sysctls"} if whole.get("sysctls") else set()
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        found |= _violations_of_container(container, whole)
    return found


def _kinds(volume: dict) -> set[str]:
    return set(volume) - {"name"} - _VOLUMES


def _violations_of_container(container: dict, whole: dict) -> set[str]:
    own = container.get("securityContext", {})
    both = {**whole, **own}
    capabilities = own.get("capabilities", {})
    probes = [container.get(f"{name}Probe", {}) for name in ("startup", "liveness", "readiness")]
    rules = {
        "privileged": own.get("privileged", False),
        "procMount": own.get("procMount", "Default") != "Default",
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation", True),
        "runAsNonRoot": not both.get("runAsNonRoot", False),
        "runAsUser": both.get("runAsUser", 1) == 0,
        "seccompProfile": both.get("seccompProfile", {}).get("type")
        not in {"RuntimeDefault", "Localhost"},
        "capabilities": "ALL" not in capabilities.get("drop", ())
        or not set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "hostPort": any(port.get("hostPort") for port in container.get("ports", ())),
        "host of a probe": any(
            "host" in probe.get(kind, {}) for probe in probes for kind in ("httpGet", "tcpSocket")
        ),
    }
    return {name for name, is_violated in rules.items() if is_violated}
