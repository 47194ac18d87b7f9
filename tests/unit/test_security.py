"""What settings of authentication mean for a service, before it has any client."""

from pathlib import Path

import pytest

import mdtool
from mdtool.core.errors import ConfigError
from mdtool.services.security import Security, keep_local

pytestmark = pytest.mark.usefixtures("no_settings")


def test_without_settings_nobody_authenticates(caplog):
    assert Security.load("gateway") is None
    keep_local("vwap", "0.0.0.0")
    assert not caplog.text


def test_a_service_that_does_not_authenticate_stays_on_this_machine(monkeypatch, caplog):
    monkeypatch.setenv("MDTOOL_AUTH_MODE", "required")
    with pytest.raises(ConfigError, match=r"vwap .* listen on 127\.0\.0\.1"):
        keep_local("vwap", "0.0.0.0")
    keep_local("vwap", "127.0.0.1")
    assert "does not authenticate" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[auth]\nmode = 'required'\n", "no token could be valid"),
        ("[auth]\nmode = 'required'\nissuer = 'https://x'\n", "audience: missing"),
        ("[auth]\nmode = 'required'\nissuer = 'x'\naudience = 'a'\n", "not a valid URL"),
        ("[auth]\nmode = 'yes'\n", "none or optional or required"),
        ("[auth]\nkey = 'x'\n", "did you mean 'keys'"),
        ("[roles.desk]\nread = 'AAPL'\n", r"\[roles.desk\] read: expects a list"),
        ("[roles]\ndesk = 1\n", r"\[roles.desk\] expects a table"),
        ("[quotas.gold]\nrequests = 1\n", r"\[quotas.gold\] requests: no such setting"),
        ("[quotas.gold]\nconnections = -1\n", "at least 0"),
    ],
)
def test_settings_that_are_not_valid_keep_a_service_from_starting(text, reason, tmp_path):
    (tmp_path / "mdtool.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        Security.load("gateway")


def test_every_other_listener_stays_on_this_machine():
    services = Path(mdtool.__file__).parent / "services"
    listening = {
        path.relative_to(services).parts[0]
        for path in services.rglob("*.py")
        if "await listen(" in path.read_text("utf-8") or "server.bind(" in path.read_text("utf-8")
    }
    kept = {
        path.relative_to(services).parts[0]
        for path in services.rglob("*.py")
        if "keep_local(" in path.read_text("utf-8")
    }
    shared = {"http", "security.py"}
    assert listening - shared <= kept | {"gateway"}
    assert "gateway" not in kept
