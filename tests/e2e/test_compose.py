"""deploy/compose.yaml: of its schema, with settings that exist, and a command that serves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.commands import completed
from tests.support.services import port_for
from tests.support.supervised import serve
from tests.support.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
ENVIRONMENTS = {path.stem: path for path in (DEPLOY / "compose").glob("*.env")}
PROFILES = {"redis", "kafka", "postgres", "observability"}
SERVICES = ("serve-tcp", "aggregate", "vwap", "gateway")
NAMED = {
    "none": b"memory:",
    "redis": b"redis://redis:6379",
    "kafka": b"kafka://kafka:9092",
    "postgres": b"postgresql://mdtool:***@postgres/mdtool",
}
"""What the settings name where a profile is chosen."""
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")

pytestmark = pytest.mark.usefixtures("no_settings")


def variables(text):
    """The variables of a file for --env-file, of those above each."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = interpolated(value, found)
    return found


def interpolated(text, values):
    return VARIABLE.sub(lambda match: values.get(match[1]) or match[2] or "", text)


def compose(profile=None):
    """The file, as Compose reads it with the variables of a profile."""
    path = ENVIRONMENTS.get(profile)
    return yaml.safe_load(
        interpolated(COMPOSE.read_text("utf-8"), variables(path.read_text()) if path else {})
    )


def test_it_has_the_form_of_compose():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, COMPOSE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_it_refers_to_exists():
    services, known = compose()["services"], compose()
    assert {name for each in services.values() for name in each.get("profiles", ())} == PROFILES
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in known["volumes"], name
        for config in service.get("configs", ()):
            assert config["source"] in known["configs"], name
        for other in service.get("depends_on", ()):
            assert "healthcheck" in services[other], name
    for config in known["configs"].values():
        assert "content" in config or (DEPLOY / config["file"]).is_file()
    build = services["mdtool"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_nothing_is_published_beyond_this_machine():
    services = compose()["services"]
    assert services["mdtool"]["environment"]["MDTOOL_AUTH_MODE"] == "none"
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("profile", NAMED)
def test_settings_are_those_of_the_services(profile, monkeypatch):
    service = compose(profile)["services"]["mdtool"]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, str(value))
    shown = b""
    for section in (service["command"], ["gateway"], ["aggregate"]):
        done = completed("config", *section)
        assert (done.returncode, done.stderr) == (0, b"")
        shown += done.stdout
    assert NAMED[profile] in shown


def test_the_stack_serves_and_says_that_it_is_ready(tmp_path, monkeypatch):
    service = compose()["services"]["mdtool"]
    for name, value in service["environment"].items():
        is_port = name.endswith("_PORT")
        monkeypatch.setenv(name, "0" if is_port else str(value).replace("0.0.0.0", "127.0.0.1"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ports = [f"--{name}-port={port_for(monkeypatch)}" for name in SERVICES]
    check = [*service["healthcheck"]["test"][2:], *ports]
    assert completed(*check).returncode == 1
    with serve(*service["command"][1:], *ports):
        wait_until(lambda: completed(*check).returncode == 0)
    assert list((tmp_path / "mdtool").glob("*.db"))
