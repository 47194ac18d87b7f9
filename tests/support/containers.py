"""Containers of an image, run by podman; and deployments of Kubernetes, as it can play them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

_LEFT_OUT = ("startupProbe", "livenessProbe", "readinessProbe", "ports")


def podman(*arguments: object) -> str:
    """Run it to its end, and return its output."""
    command = ["podman", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(
    image: str, *arguments: str, options: tuple[str, ...] = (), given: bytes = b"", status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the image to its end, confined as its pods are."""
    confined = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--rm")
    secured = ("--security-opt=no-new-privileges", "--network=host", "--pull=never")
    command = ["podman", "run", "--interactive", *confined, *secured, *options, image, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=300)
    assert done.returncode == status, done.stderr
    return done


def kill(container: str) -> None:
    """Kill the first process of a container, as a lack of memory does."""
    os.kill(int(podman("inspect", "--format={{.State.Pid}}", container)), signal.SIGKILL)


def playable(
    deployment: dict, image: str, hosts: Path, variables: dict, files: dict[str, Path]
) -> dict:
    """Return a deployment for `podman play kube`: one pod, on the network of this machine.

    Left out are its probes, which podman would run by programs that the image does not have, and
    ports, which it would map. Maps and secrets are folders of this machine, and a file has names.
    """
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for key in _LEFT_OUT:
        container.pop(key, None)
    del container["envFrom"]
    container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    container["image"] = image
    container["imagePullPolicy"] = "Never"
    pod["hostNetwork"] = True
    container["volumeMounts"].append({"name": "hosts", "mountPath": "/etc/hosts"})
    pod["volumes"] = [
        {"name": name, "hostPath": {"path": str(files[name]), "type": "Directory"}}
        if (name := volume["name"]) in files
        else volume
        for volume in pod["volumes"]
    ]
    pod["volumes"].append({"name": "hosts", "hostPath": {"path": str(hosts), "type": "File"}})
    deployment["spec"]["replicas"] = 1
    return deployment


@contextlib.contextmanager
def played(deployments: list[dict], claims: list[dict], folder: Path) -> Iterator[dict[str, str]]:
    """Run deployments within the block; yield the container of each, by its name."""
    file = folder / "pods.yaml"
    file.write_text(yaml.safe_dump_all([*claims, *deployments]))
    pods = {f"{each['metadata']['name']}-pod-0": each for each in deployments}
    try:
        podman("play", "kube", "--network=host", file)
        yield {each["metadata"]["name"]: f"{pod}-mdtool" for pod, each in pods.items()}
    finally:
        podman("pod", "rm", "--force", "--ignore", *pods)
        podman("volume", "rm", "--force", *(claim["metadata"]["name"] for claim in claims))
