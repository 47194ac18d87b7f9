"""Settings from flags, environment, file and defaults."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from mdtool.core import config
from mdtool.core.config import Origin, Peer, setting
from mdtool.core.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_settings")


@dataclass(frozen=True, slots=True)
class Settings:
    """A service's settings, of every type that there is."""

    host: str = setting("127.0.0.1", "Where to listen.")
    port: int = setting(50050, "Which port.", low=0, high=65535)
    idle_timeout_s: float = setting(1.5, "How long to wait.", low=0)
    verbose: bool = setting(False, "Say more.")
    peer: str | None = setting(None, "Whom to call.", formerly="upstream")


@pytest.fixture
def write(tmp_path):
    """Write mdtool.toml."""
    return lambda text: (tmp_path / "mdtool.toml").write_text(text, "utf-8")


def load(section="serve-tcp", **flags):
    return config.load(Settings, section, flags)


def test_defaults_hold_where_nothing_is_given():
    assert load() == Settings("127.0.0.1", 50050, 1.5, False, None)


def test_flag_beats_environment_beats_file_beats_default(write, monkeypatch):
    write("[serve-tcp]\nhost = 'file'\nport = 1\nidle-timeout-s = 9.5\n")
    monkeypatch.setenv("MDTOOL_SERVE_TCP_HOST", "environment")
    monkeypatch.setenv("MDTOOL_SERVE_TCP_PORT", "2")
    assert load(port=3, host=None) == Settings("environment", 3, 9.5, False, None)


def test_the_file_may_write_keys_either_way_and_floats_without_a_point(write):
    write("[serve-tcp]\nidle_timeout_s = 4\nverbose = true\npeer = 'x'\n")
    assert load() == Settings(idle_timeout_s=4.0, verbose=True, peer="x")


def test_an_earlier_name_of_a_setting_still_gives_it(write, monkeypatch):
    write("[serve-tcp]\nupstream = 'file'\n")
    assert load().peer == "file"
    monkeypatch.setenv("MDTOOL_SERVE_TCP_UPSTREAM", "environment")
    assert load().peer == "environment"
    assert load(upstream="flag").peer == "flag"


def test_a_named_file_takes_the_place_of_the_local_one(write, tmp_path, monkeypatch):
    write("[serve-tcp]\nport = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[serve-tcp]\nport = 2\n", "utf-8")
    monkeypatch.setenv("MDTOOL_CONFIG", str(other))
    assert load().port == 2


def test_the_file_may_begin_with_a_byte_order_mark(write):
    write("\ufeff[serve-tcp]\nport = 1\n")
    assert load().port == 1


def test_other_sections_do_not_matter(write):
    write("[gateway]\nport = 8081\n[serve-tcp]\nport = 1\n")
    assert load().port == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[serve-tcp]\nprot = 1\n", "mdtool.toml: [serve-tcp] prot: no such setting; did you mean"),
        ("[serve-tpc]\nport = 1\n", "no section [serve-tpc]; did you mean 'serve-tcp'?"),
        ("zzz = 1\n", "no section [zzz]; choose from aggregate, "),
        ("serve-tcp = 1\n", "serve-tcp must be a section, [serve-tcp]"),
        ("[serve-tcp]\nport = 'x'\n", "[serve-tcp] port: expects int, not 'x'"),
        ("[serve-tcp]\nport = true\n", "[serve-tcp] port: expects int, not True"),
        ("[serve-tcp]\nport = 1.5\n", "[serve-tcp] port: expects int, not 1.5"),
        ("[serve-tcp]\nverbose = 1\n", "[serve-tcp] verbose: expects bool, not 1"),
        ("[serve-tcp]\nport = 65536\n", "[serve-tcp] port: 65536 is not from 0 to 65535"),
        ("[serve-tcp]\nidle-timeout-s = -1\n", "idle-timeout-s: -1.0 is not at least 0"),
        ("[serve-tcp]\nidle-timeout-s = nan\n", "idle-timeout-s: nan is not"),
        ("[serve-tcp]\nidle-timeout-s = inf\n", "idle-timeout-s: inf is not a finite number"),
        ("[serve-tcp\n", "mdtool.toml: "),
    ],
)
def test_a_bad_file_is_rejected_with_the_place(write, text, message):
    write(text)
    with pytest.raises(ConfigError) as refused:
        load()
    assert message in str(refused.value)


def test_a_file_that_is_not_text_is_rejected(tmp_path):
    (tmp_path / "mdtool.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mdtool\.toml"):
        load()


def test_a_named_file_that_does_not_exist_is_rejected(monkeypatch):
    monkeypatch.setenv("MDTOOL_CONFIG", "nowhere.toml")
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MDTOOL_SERVE_TCP_PROT", "1", "MDTOOL_SERVE_TCP_PROT: no such setting; did you mean"),
        ("MDTOOL_SERVE_TCP_PORT", "x", "expects int, not 'x'"),
        ("MDTOOL_SERVE_TCP_PORT", "70000", "70000 is not from 0 to 65535"),
        ("MDTOOL_SERVE_TCP_VERBOSE", "maybe", "expects true or false, not 'maybe'"),
        ("MDTOOL_SERVE_TCP_IDLE_TIMEOUT_S", "nan", "nan is not"),
    ],
)
def test_a_bad_variable_is_rejected_with_its_name(monkeypatch, key, value, message):
    monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError) as refused:
        load()
    assert message in str(refused.value)
    assert key in str(refused.value)


def test_a_variable_may_name_a_file_with_the_value(tmp_path, monkeypatch):
    (tmp_path / "host").write_text("from-a-file\n")
    monkeypatch.setenv("MDTOOL_SERVE_TCP_HOST_FILE", str(tmp_path / "host"))
    assert load().host == "from-a-file"
    monkeypatch.setenv("MDTOOL_SERVE_TCP_HOST", "own")
    with pytest.raises(ConfigError, match=r"MDTOOL_SERVE_TCP_HOST_FILE .*: give one of them"):
        load()
    monkeypatch.delenv("MDTOOL_SERVE_TCP_HOST")
    monkeypatch.setenv("MDTOOL_SERVE_TCP_HOST_FILE", "nowhere")
    with pytest.raises(ConfigError, match="MDTOOL_SERVE_TCP_HOST_FILE=nowhere: No such file"):
        load()


def test_a_flag_out_of_its_range_is_rejected_as_it_is_written():
    with pytest.raises(ConfigError, match=r"^--idle-timeout-s: -1\.0 is not at least 0$"):
        load(idle_timeout_s=-1.0)


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("No", False)]
)
def test_booleans_in_the_environment(monkeypatch, text, value):
    monkeypatch.setenv("MDTOOL_SERVE_TCP_VERBOSE", text)
    assert load().verbose is value


def test_a_variable_belongs_to_the_longest_section_that_fits(monkeypatch):
    monkeypatch.setenv("MDTOOL_SERVE_TCP_PORT", "1")
    assert load("serve").port == 50050
    assert load("serve-tcp").port == 1


def test_an_unknown_variable_of_a_section_with_a_longer_namesake_is_rejected(monkeypatch):
    monkeypatch.setenv("MDTOOL_SERVE_ONYL", "gateway")
    with pytest.raises(ConfigError, match="MDTOOL_SERVE_ONYL: no such setting"):
        load("serve")


def test_variables_that_are_no_settings_do_not_matter(monkeypatch):
    monkeypatch.setenv("MDTOOL_TEST_DATA", "somewhere")
    monkeypatch.setenv("MDTOOL_READY_FD", "7")
    assert load() == Settings()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("PORT", "tcp://10.96.0.7:50050"),
        ("PORT", "udp://[fd00::7]:50050"),
        ("SERVICE_HOST", "10.96.0.7"),
        ("SERVICE_PORT", "50050"),
        ("SERVICE_PORT_TICKS_TCP", "50050"),
        ("PORT_50050_TCP", "tcp://10.96.0.7:50050"),
        ("PORT_50050_TCP_PROTO", "tcp"),
        ("PORT_50050_UDP_PORT", "50050"),
        ("PORT_50050_SCTP_ADDR", "10.96.0.7"),
        ("METRICS_PORT", "tcp://10.96.0.8:9100"),  # of a service mdtool-serve-tcp-metrics
    ],
)
def test_links_to_services_of_kubernetes_are_not_settings(monkeypatch, key, text):
    monkeypatch.setenv(f"MDTOOL_SERVE_TCP_{key}", text)
    assert load() == Settings()
    assert load("serve") == Settings()
    assert config.stray_variables() == {}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("MDTOOL_GATWAY_PORT", "; did you mean MDTOOL_GATEWAY_PORT?"),
        ("MDTOOL_SERV_TCP_PORT", "; did you mean MDTOOL_SERVE_TCP_PORT?"),
        ("MDTOOL_GATEWY_ALLOWED_ORIGINS", "; did you mean MDTOOL_GATEWAY_ALLOWED_ORIGINS?"),
        ("MDTOOL_COLOUR", ""),
    ],
)
def test_variables_of_no_section_are_named_with_the_nearest(monkeypatch, key, hint):
    monkeypatch.setenv("MDTOOL_GATEWAY_PORT", "8080")
    monkeypatch.setenv("MDTOOL_CONFIG", "mdtool.toml")
    monkeypatch.setenv("MDTOOL_OTHER_PORT", "tcp://10.96.0.7:80")
    monkeypatch.setenv(key, "1")
    assert config.stray_variables() == {key: hint}


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("PORT", "10.96.0.7:50050", "expects int"),
        ("SERVICE", "10.96.0.7", "no such setting"),
        ("PORT_50050", "x", "no such setting"),
        ("PORTS", "tcp://10.96.0.7:50050", "no such setting"),
    ],
)
def test_what_only_looks_like_a_link_is_an_error(monkeypatch, key, text, said):
    monkeypatch.setenv(f"MDTOOL_SERVE_TCP_{key}", text)
    with pytest.raises(ConfigError, match=said):
        load()


@dataclass(frozen=True, slots=True)
class Client:
    """Settings that are addresses of other services."""

    aggregator: str = setting("127.0.0.1:50051", "Where.", peer=Peer("aggregate"))
    data: str = setting("127.0.0.1:9090", "Where.", peer=Peer("replay-dbn", "data_port"))
    host: str = setting("127.0.0.1", "Where.", peer=Peer("serve-tcp"))
    port: int = setting(50050, "Where.", low=1, high=65535, peer=Peer("serve-tcp"))


def client(**flags):
    return config.load(Client, "send", flags)


def test_addresses_of_peers_are_those_that_their_own_sections_give(write, monkeypatch):
    assert client() == Client()
    write(
        "[aggregate]\nhost = '0.0.0.0'\nport = 1\n[replay-dbn]\nport = 2\ndata-port = 3\n"
        "[serve-tcp]\nhost = '::'\n"
    )
    assert client() == Client("127.0.0.1:1", "127.0.0.1:3", "::1", 50050)
    monkeypatch.setenv("MDTOOL_AGGREGATE_PORT", "4")
    monkeypatch.setenv("MDTOOL_SERVE_TCP_PORT", "tcp://10.0.0.1:50050")  # Kubernetes' own
    assert client() == Client("127.0.0.1:4", "127.0.0.1:3", "::1", 50050)
    assert client(aggregator="far:5", port=6) == Client("far:5", "127.0.0.1:3", "::1", 6)


def test_what_serve_all_gives_a_peer_goes_before_its_own_section(write):
    write("[aggregate]\nhost = '::1'\nport = 1\n[serve]\naggregate-port = 2\nserve_tcp_port = 3\n")
    assert client() == Client("[::1]:2", port=3)


def test_a_peer_at_any_free_port_is_looked_for_at_the_default(write):
    write("[aggregate]\nport = 0\n[serve-tcp]\nport = 0\n")
    assert client() == Client()


def test_an_address_of_the_wrong_type_is_an_error_of_its_own_section(write):
    write("[aggregate]\nport = 'x'\n")
    with pytest.raises(ConfigError, match=r"\[aggregate\] port: expects int, not 'x'"):
        client()


def test_origins_name_the_flag_the_variable_and_the_place_in_the_file(write, monkeypatch):
    write("[serve-tcp]\nidle-timeout-s = 9\n[aggregate]\nport = 1\n")
    monkeypatch.setenv("MDTOOL_SERVE_TCP_HOST", "there")
    assert config.origins(Settings, "serve-tcp", {"port": 3}) == {
        "host": Origin("there", "MDTOOL_SERVE_TCP_HOST"),
        "port": Origin(3, "--port"),
        "idle_timeout_s": Origin(9.0, "mdtool.toml: [serve-tcp] idle-timeout-s"),
        "verbose": Origin(False, "default"),
        "peer": Origin(None, "default"),
    }
    found = config.origins(Client, "send", {})
    assert found["aggregator"] == Origin("127.0.0.1:1", "mdtool.toml: [aggregate] port")
