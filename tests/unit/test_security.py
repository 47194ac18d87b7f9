"""What settings of authentication mean for a service, before it has any client."""

from pathlib import Path

import pytest

import mdtool
from mdtool.core.errors import ConfigError, StartupError
from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.server import LiveGateway
from mdtool.services.security import Security, keep_local

pytestmark = pytest.mark.usefixtures("no_settings")


def test_without_settings_nobody_authenticates(caplog):
    assert Security.load("gateway", "127.0.0.1") is None
    keep_local("book", "localhost")
    assert not caplog.text


def test_a_service_that_does_not_authenticate_stays_on_this_machine(monkeypatch, caplog):
    monkeypatch.setenv("MDTOOL_AUTH_MODE", "required")
    with pytest.raises(ConfigError, match=r"book .* listen on 127\.0\.0\.1"):
        keep_local("book", "0.0.0.0")
    keep_local("book", "127.0.0.1")
    assert "does not authenticate" in caplog.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[auth]\nmode = 'required'\n", "no token could be valid"),
        ("[auth]\nmode = 'required'\nissuer = 'https://x'\n", "audience: missing"),
        ("[auth]\nmode = 'required'\nissuer = 'x'\naudience = 'a'\n", "not a valid URL"),
        ("[auth]\nmode = 'yes'\n", "none or optional or required"),
        ("[auth]\nkey = 'x'\n", "did you mean 'keys'"),
        ("[roles.desk]\nread = 'AAPL'\n", r"mdtool.toml: \[roles.desk\] read: expects a list"),
        ("[roles]\ndesk = 1\n", r"mdtool.toml: \[roles.desk\] expects a table"),
        (
            "[quotas.gold]\nrequests = 1\n",
            r"mdtool.toml: \[quotas.gold\] requests: no such setting",
        ),
        ("[quotas.gold]\nconnections = -1\n", "at least 0"),
    ],
)
def test_settings_that_are_not_valid_keep_a_service_from_starting(text, reason, tmp_path):
    (tmp_path / "mdtool.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        Security.load("gateway", "127.0.0.1")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.7", "example.com", "127.0.0.1.example"]
)
def test_a_listener_beyond_this_machine_needs_a_word_about_authentication(host, monkeypatch):
    with pytest.raises(
        ConfigError, match=r"^vwap: would listen on .*; set \[auth\], or give --auth"
    ):
        Security.load("vwap", host)
    assert Security.load("vwap", host, "none") is None
    monkeypatch.setenv("MDTOOL_AUTH_MODE", "none")
    assert Security.load("vwap", host) is None
    keep_local("book", host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "LOCALHOST."])
def test_a_listener_on_this_machine_needs_none(host):
    assert Security.load("vwap", host) is None


async def test_a_live_gateway_with_keys_authenticates_its_clients(monkeypatch):
    def gateway(keys):
        return LiveGateway(LiveGatewayConfig(host="0.0.0.0", port=0, keys=keys), ())

    with pytest.raises(ConfigError, match="without authentication"):
        await gateway(None).run(pytest.fail)
    with pytest.raises(StartupError, match=r"keys\.txt"):  # it comes as far as to read them
        await gateway("keys.txt").run(pytest.fail)
    monkeypatch.setenv("MDTOOL_AUTH_MODE", "required")
    with pytest.raises(ConfigError, match=r"does not authenticate .* --keys FILE"):
        await gateway(None).run(pytest.fail)


def test_every_listener_asks_who_its_clients_are():
    services = Path(mdtool.__file__).parent / "services"
    listening = {
        path.relative_to(services).parts[0]
        for path in services.rglob("*.py")
        if "await listen(" in path.read_text("utf-8") or "server.bind(" in path.read_text("utf-8")
    }
    asking = {
        path.relative_to(services).parts[0]
        for path in services.rglob("*.py")
        if "Security.load(" in (text := path.read_text("utf-8")) or "keep_local(" in text
    }
    assert listening <= asking | {"http", "metrics.py"}  # which are on this machine alone
