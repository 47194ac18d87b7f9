"""The image of deploy/Dockerfile, and the pods of deploy/kubernetes/overlays/single, run for real.

.ci/image builds the image and runs these tests; elsewhere they are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.metadata import version

import pytest

from tests.support.containers import kill, playable, played, podman, run
from tests.support.manifests import manifests, of_kind
from tests.support.tokens import Keys
from tests.support.waiting import wait_until

USER = 65532
TICKS = 20_000
GATEWAY = "http://127.0.0.1:8080"
COMPILING = "compiling kernels"

pytestmark = [pytest.mark.usefixtures("no_settings"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image():
    if not (named := os.environ.get("TEST_IMAGE")):
        pytest.skip("there is no image; .ci/image builds it")
    return named


def test_it_says_what_it_is(image):
    [made] = json.loads(podman("inspect", image))
    labels = made["Labels"]
    assert labels["org.opencontainers.image.version"] == version("mdtool")
    assert made["User"] == f"{USER}:{USER}"
    assert made["Config"]["Entrypoint"] == ["mdtool"]
    assert run(image, "--version").stdout.decode().strip() == f"mdtool {version('mdtool')}"


def test_its_bill_of_materials_names_what_is_installed(image):
    show = ("--entrypoint", "/usr/bin/cat")
    bill = json.loads(run(image, "/usr/share/sbom/mdtool.cdx.json", options=show).stdout)
    assert bill["bomFormat"] == "CycloneDX"
    named = {each["name"].lower(): each["version"] for each in bill["components"]}
    code = (
        "import importlib.metadata as installed\n"
        "print(*(f'{each.name}={each.version}' for each in installed.distributions()))"
    )
    python = ("--entrypoint", "/opt/mdtool/bin/python")
    for each in run(image, "-c", code, options=python).stdout.decode().split():
        name, _, installed_version = each.partition("=")
        assert named[name.lower()] == installed_version


def test_it_needs_no_shell_and_compiles_nothing(image):
    without = ("--volume=/dev/null:/bin/sh:ro", "--volume=/dev/null:/usr/bin/dash:ro")
    orders = run(image, "simulate", "--limit", "1000", options=without)
    books = run(image, "book", "-", "--json", options=without, given=orders.stdout)
    assert books.stdout.startswith(b'{"symbol":"AAPL"')
    assert COMPILING not in (orders.stderr + books.stderr).decode()
    asked = run(image, "serve", "--ready", options=without, status=1)
    assert b"is not ready: Connection refused" in asked.stderr


def test_a_volume_that_cannot_be_written_is_one_line(image, tmp_path):
    for options in ((), (f"--volume={tmp_path}:/data",)):  # a read-only root; another user's
        told = run(image, "serve", "together", options=options, status=3)
        assert told.stderr.startswith(b"mdtool: cannot store data in /data/mdtool: ")
        assert told.stderr.count(b"\n") == 1


@pytest.fixture
def secrets(tmp_path):
    """A folder with the files of the Secret, and a token of an operator."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o755)
    keys = Keys(folder)
    (folder / "services-secret").write_text("of-this-run\n")
    token = keys.make("desk", "operator")
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder, token


@pytest.fixture
def stack(image, secrets, tmp_path):
    """The pods of the overlay `single`: their containers, and a token."""
    folder, token = secrets
    objects = manifests("single")
    maps = {
        name.rpartition("-")[0]: each["data"]
        for name, each in of_kind("ConfigMap", objects).items()
    }
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "mdtool.toml").write_text(maps["mdtool-settings"]["mdtool.toml"])
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    deployments = of_kind("Deployment", objects)
    given = {"settings": settings, "secrets": folder}
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *deployments)))
    made = [
        playable(each, image, hosts, maps["mdtool-variables"], given)
        for each in deployments.values()
    ]
    claims = list(of_kind("PersistentVolumeClaim", objects).values())
    with played(made, claims, tmp_path) as containers:
        yield containers, token


def requested(path, token):
    request = urllib.request.Request(GATEWAY + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
    except (urllib.error.URLError, OSError):
        return None


def counted(token):
    """How many trades the gateway's aggregates have."""
    answer = requested("/api/v2/aggregates?limit=1000", token)
    return sum(int(row["trades"]) for row in answer["data"]) if answer else 0


def test_pods_do_the_main_job_and_survive_kills(stack):
    containers, token = stack
    wait_until(lambda: requested("/readyz", token))
    assert requested("/api/v2/aggregates", "mdk_wrong") is None
    simulate = ["--simulate", "--limit", str(TICKS), "--rate", "2000", "--seed", "7"]
    command = [sys.executable, "-m", "mdtool", "send", *simulate]
    environment = {**os.environ, "MDTOOL_TOKEN": token}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as sender:
        for name in ("aggregate", "serve-tcp", "gateway", "vwap"):
            before = counted(token)
            wait_until(lambda before=before: counted(token) > before)
            kill(containers[name])
        _, errors = sender.communicate()
    assert sender.returncode == 0, errors
    wait_until(lambda: counted(token) == TICKS)
    for name, container in containers.items():
        logs = podman("logs", container)
        assert COMPILING not in logs, name
