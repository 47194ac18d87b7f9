"""Which processes the supervisor's settings ask for."""

from __future__ import annotations

import contextlib
import re
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from mdtool.core.addresses import dial_address
from mdtool.core.config import load, variable
from mdtool.core.errors import ConfigError, InputError, StartupError, UsageError
from mdtool.core.lifecycle import stop_within_s
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.programs import programs
from mdtool.services.supervisor.topology import endpoints, prepared, stored_in

pytestmark = pytest.mark.usefixtures("no_settings")


@contextlib.contextmanager
def running_of(**settings):
    """The programs of settings, a process each."""
    with prepared(ServeConfig(**{"processes": True} | settings)) as topology:
        yield programs(topology, ["mdtool"])


def commands(**settings):
    """Return the command of each program, without what starts mdtool."""
    with running_of(**settings) as running:
        found = {program.name: " ".join(program.command[1:]) for program in running}
    return {
        name: re.sub(r" --((aggregator-)?socket|quotes-at) \S+", "", command)
        for name, command in found.items()
    }


def test_all_services_by_their_own_defaults():
    assert commands() == {
        "gateway": "gateway --host 127.0.0.1 --port 8080 --vwap 127.0.0.1:8888 "
        "--aggregator 127.0.0.1:50051",
        "vwap": "vwap --host 127.0.0.1 --port 8888 --aggregator 127.0.0.1:50051",
        "aggregate": "aggregate --host 127.0.0.1 --port 50051",
        "serve-tcp": "serve-tcp --host 127.0.0.1 --port 50050 --aggregator 127.0.0.1:50051",
    }


def test_by_default_all_services_share_a_process():
    with running_of(processes=False, gateway_port=2, memory=True, simulate=True) as running:
        (together,) = running
    command = "mdtool serve together --only aggregate,vwap,gateway,serve-tcp"
    assert " ".join(together.command) == command
    assert list(together.services) == ["aggregate", "vwap", "gateway", "serve-tcp", "simulate"]
    assert (
        together.environment.items()
        >= {
            "MDTOOL_SERVE_GATEWAY_PORT": "2",
            "MDTOOL_SERVE_AGGREGATE_PORT": "50051",
            "MDTOOL_SERVE_MEMORY": "True",
            "MDTOOL_SERVE_SIMULATE": "True",
        }.items()
    )
    assert 0.95 * stop_within_s() < together.stop_s < stop_within_s()


def test_the_services_of_one_process_run_as_its_supervisor_was_told(monkeypatch, tmp_path):
    (tmp_path / "mdtool.toml").write_text("[serve]\nmemory = true\nsimulate = true\n")
    told = {"store": "sqlite:///t.db", "memory": False, "simulate": False, "vwap_port": 7}
    with running_of(processes=False, only="vwap", **told) as running:
        for name, value in running[0].environment.items():
            monkeypatch.setenv(name, value)
        *_, only = running[0].command
    again = load(ServeConfig, "serve", {"only": only})
    assert again == ServeConfig(only="vwap", **told)


def test_a_replay_again_that_is_cut_off_continues_its_stream(tmp_path):
    file = tmp_path / "trades.dbn"
    file.touch()
    with running_of(processes=False, replay=str(file), again=True) as running:
        assert running[0].environment["MDTOOL_SEND_STREAM_ID"].startswith("replay-")


def test_hosts_and_ports_are_passed_on():
    found = commands(aggregate_host="::1", aggregate_port=1, gateway_port=2, serve_tcp_port=3)
    assert found["aggregate"] == "aggregate --host ::1 --port 1"
    assert (
        found["gateway"]
        == "gateway --host 127.0.0.1 --port 2 --vwap 127.0.0.1:8888 --aggregator [::1]:1"
    )
    assert found["serve-tcp"].endswith("--port 3 --aggregator [::1]:1")


def test_a_service_that_listens_everywhere_is_dialled_here():
    assert commands(aggregate_host="0.0.0.0")["gateway"].endswith("--aggregator 127.0.0.1:50051")
    assert dial_address("::", 1) == "[::1]:1"
    assert dial_address("example.org", 1) == "example.org:1"


def stores(**settings):
    """Return the URL that each program is told, where it is told one."""
    with running_of(**settings) as running:
        return {program.name: dict(program.environment) for program in running}


def told(url):
    return {
        "gateway": {"MDTOOL_GATEWAY_STORE": url},
        "vwap": {"MDTOOL_VWAP_STORE": url},
        "aggregate": {"MDTOOL_AGGREGATE_STORE": url},
        "serve-tcp": {},
    }


def test_data_is_stored_in_the_users_folder_which_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    assert stores() == told(f"sqlite:///{tmp_path}/data/mdtool/mdtool.db")
    assert (tmp_path / "data" / "mdtool").is_dir()


def test_the_store_follows_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    assert stores(data_dir="mine/too") == told(f"sqlite:///{tmp_path}/mine/too/mdtool.db")
    assert stores(store="postgresql://db/trades") == told("postgresql://db/trades")
    assert stores(memory=True) == told("")
    assert not (tmp_path / "data").exists()


def test_a_store_that_the_aggregator_is_set_to_is_everybodys(tmp_path, monkeypatch):
    (tmp_path / "mdtool.toml").write_text('[aggregate]\nstore = "postgresql://me:secret@db/t"\n')

    assert stores() == told("postgresql://me:secret@db/t")
    assert stores(memory=True) == told("")
    assert stores(data_dir=str(tmp_path)) == told(f"sqlite:///{tmp_path}/mdtool.db")


@pytest.mark.parametrize("source", [{"simulate": True}, {"replay": "trades.dbn"}])
def test_simulated_and_replayed_trades_are_stored_where_a_store_is_named(
    source, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "trades.dbn").touch()

    assert stores(**source)["aggregate"] == {"MDTOOL_AGGREGATE_STORE": ""}
    assert stores(**source, store="sqlite:///t.db")["aggregate"] == {
        "MDTOOL_AGGREGATE_STORE": "sqlite:///t.db"
    }
    (tmp_path / "mdtool.toml").write_text('[aggregate]\nstore = "sqlite:///own.db"\n')
    assert stores(**source)["aggregate"] == {"MDTOOL_AGGREGATE_STORE": "sqlite:///own.db"}
    assert not (tmp_path / "data").exists()


def test_services_that_keep_nothing_need_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    assert stores(only="serve-tcp") == {"serve-tcp": {}}
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"memory": True, "store": "sqlite:///t.db"},
        {"memory": True, "data_dir": "d"},
        {"store": "sqlite:///t.db", "data_dir": "d"},
    ],
)
def test_stores_that_contradict_each_other_are_wrong_usage(settings):
    with pytest.raises(UsageError, match="choose one"):
        commands(**settings)


def test_a_folder_that_cannot_be_made_is_no_reason_to_try_again(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StartupError, match=r"file/d: Not a directory.*--memory"):
        commands(data_dir="file/d")


def test_the_place_of_the_store_is_shown_without_secrets(tmp_path):
    for settings, said in [
        ({"data_dir": "d"}, f"sqlite {tmp_path}/d/mdtool.db"),
        ({"memory": True}, "nothing is stored"),
    ]:
        with prepared(ServeConfig(**settings)) as topology:
            assert said in stored_in(topology)


def test_services_keep_their_own_settings(tmp_path, monkeypatch):
    (tmp_path / "mdtool.toml").write_text("[aggregate]\nport = 7\n[gateway]\nport = 8\n")
    monkeypatch.setenv("MDTOOL_GATEWAY_PORT", "9")
    assert {name: port for name, (_, port) in endpoints(ServeConfig()).items()} == {
        "gateway": 9,
        "vwap": 8888,
        "aggregate": 7,
        "serve-tcp": 50050,
        "book": 8082,
        "replay-dbn": 8081,
        "live-gateway": 13000,
        "replay-dbn data": 9090,
        "live-gateway control": 13001,
    }


def test_a_wrong_setting_of_any_service_is_met_before_the_start(tmp_path):
    (tmp_path / "mdtool.toml").write_text("[gateway]\nprot = 8\n")
    with pytest.raises(ConfigError, match=r"\[gateway\] prot"):
        commands()


def test_port_0_becomes_a_free_port_that_all_programs_are_given():
    with running_of(aggregate_port=0) as running:
        options = {p.name: dict(pairwise(p.command)) for p in running}
        port = options["aggregate"]["--port"]
        assert int(port) > 0
        for name in ("gateway", "serve-tcp"):
            assert options[name]["--aggregator"] == f"127.0.0.1:{port}"
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(port)))


def test_services_of_one_machine_are_given_the_aggregators_socket():
    with running_of() as running:
        options = {p.name: dict(pairwise(p.command)) for p in running}
        path = options["aggregate"]["--socket"]
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
        for name in ("gateway", "vwap", "serve-tcp"):
            assert options[name]["--aggregator-socket"] == path
    assert not Path(path).parent.exists()


def test_only_some_services_go_by_their_own_settings_for_the_others():
    assert list(commands(only=" serve-tcp,aggregate ")) == ["aggregate", "serve-tcp"]
    assert commands(only="gateway") == {"gateway": "gateway --host 127.0.0.1 --port 8080"}


def test_a_simulation_is_sent_once_serve_tcp_is_ready():
    with running_of(simulate=True, rate=2500.0, serve_tcp_port=3) as running:
        *_, gateway, _, source = running
    *sends, option, quotes_at = source.command
    assert " ".join(sends) == "mdtool send 127.0.0.1:3 --simulate --rate 2500"
    assert option == "--quotes-at"
    assert f"--quotes-from {quotes_at} " in " ".join(gateway.command)
    assert (source.name, source.after, source.is_source) == ("simulate", "serve-tcp", True)


@pytest.mark.parametrize(("rate", "first_tick_s"), [(1.0, 60.0), (0.01, 2.0)])
def test_all_are_ready_once_a_simulation_trades_however_long_it_compiles(rate, first_tick_s):
    with running_of(simulate=True, rate=rate) as running:
        assert running[-1].first_tick_s == first_tick_s


def test_a_replay_is_the_stream_of_its_file_or_again_one_of_its_own(tmp_path):
    file = tmp_path / "trades.dbn"
    file.touch()
    sent = f"send 127.0.0.1:50050 {file} --speed 10"
    assert commands(replay=str(file), speed=10.0)["replay"] == f"{sent} --prices positive --once"
    (tmp_path / "mdtool.toml").write_text('[serve-tcp]\nprices = "any"\n')
    sent += " --prices any"
    assert commands(replay=str(file), speed=10.0)["replay"] == f"{sent} --once"
    one, other = (commands(replay=str(file), speed=10.0, again=True)["replay"] for _ in range(2))
    assert one.startswith(f"{sent} --stream-id replay-")
    assert one != other


@pytest.fixture
def day(tmp_path):
    """A file that is there."""
    file = tmp_path / "day.dbn"
    file.touch()
    return str(file)


def test_a_book_has_a_sender_and_a_receiver_behind_the_gateway(day):
    found = commands(book=day)
    assert list(found) == ["replay-dbn", "book", "aggregate", "vwap", "gateway", "serve-tcp"]
    assert found["gateway"].endswith(
        "--sender 127.0.0.1:8081 --receiver 127.0.0.1:8082 --quotes-from 127.0.0.1:9090"
    )
    with_ticks = commands(book=day, simulate=True)["gateway"]
    assert re.search(r"--quotes-from 127.0.0.1:9090,127.0.0.1:\d+$", with_ticks)
    assert found["book"] == "book --serve --host 127.0.0.1 --port 8082 --sender 127.0.0.1:9090"
    assert found["replay-dbn"] == (
        f"replay-dbn --serve --host 127.0.0.1 --port 8081 --data-port 9090 --speed 0 {day}"
    )


@pytest.mark.parametrize("is_apart", [True, False])
def test_both_ports_of_a_live_gateway_can_be_any_free_one(day, is_apart):
    free = {"live_gateway_port": 0, "live_gateway_control_port": 0}
    with running_of(live=day, only="live-gateway", processes=is_apart, **free) as running:
        (program,) = running
        given = {**program.environment, **dict(pairwise(program.command))}
        together = [f"MDTOOL_SERVE_{name.upper()}" for name in free]
        names = ["--port", "--control-port"] if is_apart else together
        first, second = (int(given[name]) for name in names)
        assert 0 < first != second > 0


def test_a_book_alone_and_at_a_speed(day):
    found = commands(book=day, speed=2.5, only="book,replay-dbn", replay_dbn_data_port=3)
    assert list(found) == ["replay-dbn", "book"]
    assert found["book"].endswith("--sender 127.0.0.1:3")
    assert found["replay-dbn"].endswith(f"--data-port 3 --speed 2.5 {day}")


def test_a_receiver_of_a_sender_elsewhere():
    assert commands(only="book") == {"book": "book --serve --host 127.0.0.1 --port 8082"}


def test_every_port_of_a_book_can_be_any_free_one(day):
    free = {"book_port": 0, "replay_dbn_port": 0, "replay_dbn_data_port": 0, "gateway_port": 0}
    with running_of(book=day, **free) as running:
        command = {program.name: list(program.command) for program in running}
    sender = dict(zip(command["replay-dbn"], command["replay-dbn"][1:], strict=False))
    receiver = dict(zip(command["book"], command["book"][1:], strict=False))
    gateway = dict(zip(command["gateway"], command["gateway"][1:], strict=False))
    assert len({sender["--port"], sender["--data-port"], receiver["--port"], "0"}) == 4
    assert receiver["--sender"] == f"127.0.0.1:{sender['--data-port']}"
    assert gateway["--sender"] == f"127.0.0.1:{sender['--port']}"
    assert gateway["--receiver"] == f"127.0.0.1:{receiver['--port']}"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"only": "replay-dbn"}, UsageError, "name a file with --book FILE"),
        ({"book": "f.dbn", "only": "book"}, UsageError, "which --only leaves out"),
        ({"book": "nowhere.dbn"}, InputError, "nowhere.dbn: no such file"),
        (
            {"only": "gatewya"},
            UsageError,
            "--only gatewya: no such service; did you mean 'gateway'?",
        ),
        ({"simulate": True, "replay": "f.dbn"}, UsageError, "choose one"),
        ({"simulate": True, "again": True}, UsageError, "name it with --replay FILE"),
        ({"simulate": True, "only": "aggregate"}, UsageError, "--only leaves out"),
        ({"replay": "nowhere.dbn"}, InputError, "nowhere.dbn: no such file"),
        ({"gateway_host": "192.0.2.1", "gateway_port": 0}, StartupError, "listen on 192.0.2.1"),
    ],
)
def test_invalid_settings_are_rejected_before_the_start(settings, error, message):
    with pytest.raises(error) as refused:
        commands(**settings)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "settings", [{}, {"simulate": True}, {"only": "gateway"}, {"simulate": True, "book": "day"}]
)
def test_what_all_may_take_to_stop_is_just_less_than_the_supervisor_may(settings, day):
    if "book" in settings:
        settings = settings | {"book": day}
    with running_of(**settings) as running:
        each_s = [program.stop_s for program in running]
    assert min(each_s) > 0
    assert 0.95 * stop_within_s() < sum(each_s) < stop_within_s()


def test_only_the_gateway_of_separate_processes_drains(monkeypatch):
    monkeypatch.setenv(variable("stop", "drain_s"), "600")
    with running_of(processes=True) as running:
        drains_s = {
            program.name: program.environment.get(variable("stop", "drain_s"))
            for program in running
        }
        longest = max(running, key=lambda program: program.stop_s)
    assert drains_s.pop("gateway") is None
    assert {*drains_s.values()} == {"0.0"}
    assert longest.name == "gateway"
    assert longest.stop_s > 600
