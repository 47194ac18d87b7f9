"""`mdtool serve`: the real services under one supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest

from mdtool.adapters.stores import open_history
from mdtool.wire.frames import END_FRAME, ReplyDecoder
from mdtool.wire.tick_encoder import encode_frames
from tests.support.certificates import Certificates
from tests.support.commands import completed
from tests.support.services import service
from tests.support.supervised import FREE_PORTS, PATIENCE_S, Watch, check, needs_pidfd, serve
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("no_settings")

SERVICES = ("serve-tcp", "gateway", "vwap", "aggregate")
"""In the order in which they stop, and are logged."""
PROCESSES = ("--processes",)
TOGETHER = ()
"""Options for a process for each service, and for one that runs them all, the default."""
in_both_forms = pytest.mark.parametrize("form", [TOGETHER, PROCESSES], ids=["one", "each"])
AWAY = "127.0.0.1:1 cannot be reached: Connection refused; mdtool serve all runs it"


def get(address, path):
    with urllib.request.urlopen(f"http://{address}{path}") as response:
        return response.read().decode()


def symbols_of(gateway, feed):
    """The symbols of a feed, none while the gateway is not connected to what it comes from."""
    with contextlib.suppress(urllib.error.HTTPError):
        return [row["symbol"] for row in json.loads(get(gateway, f"/api/v2/{feed}"))["data"]]
    return []


def send_tick(address, symbol):
    """Send a tick, and return the server's answer once it is committed."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(encode_frames([symbol], [0], [10**9], [1], [time.time_ns()]).data)
        client.shutdown(socket.SHUT_WR)
        (ack,) = ReplyDecoder().feed(client.makefile("rb").read())
    return ack.message


@in_both_forms
def test_a_check_goes_through_all_services_and_leaves_nothing_behind(form, tmp_path):
    store = f"sqlite:///{tmp_path}/trades.db"
    with serve("all", "-J", "--store", store, *form, *FREE_PORTS) as services:
        addresses = services.addresses(4)
        assert tuple(addresses) == SERVICES
        checked = check(addresses, "-J")
        assert checked.stderr == ""
        hops = {entry["hop"]: entry for entry in map(json.loads, checked.stdout.splitlines())}
        assert list(hops) == [
            "client to aggregate, applied",
            "client to aggregate, committed",
            "client to gateway, served",
            "client to vwap, published",
        ]
        for hop in hops.values():
            assert hop["ticks"] == 3
            assert 0 < hop["median_us"] <= hop["slowest_us"]
        assert send_tick(addresses["serve-tcp"], "AAPL") == "Accepted 1 tick, refused 0"
        table = check(addresses)
        assert (table.returncode, len(table.stdout.splitlines()) in {5, 6}) == (0, True)
        gateway = addresses["gateway"]
        for feed in ("aggregates", "quotes", "vwap", "symbols"):
            wait_until(lambda feed=feed: symbols_of(gateway, feed))
            assert symbols_of(gateway, feed) == ["AAPL"], feed
        assert json.loads(get(gateway, "/health"))["symbols"]["known"] == 1
        counted = get(gateway, "/metrics").splitlines()
        assert "mdtool_ticks_total 1.0" in counted
        assert 'mdtool_ticks_refused_total{reason="malformed"} 0.0' in counted
        assert services.end(signal.SIGTERM) == 0
    with open_history(store) as history:
        assert [(totals.symbol, totals.trade_count) for totals in history.symbols()] == [
            ("AAPL", 1)
        ]
    assert "stopped with" not in "".join(services.lines)


@in_both_forms
def test_a_hangup_has_certificates_read_again_and_connections_stay(form, tmp_path, monkeypatch):
    certificates = Certificates(tmp_path)
    certificates.use(monkeypatch)
    with serve("all", "-J", "--only", "serve-tcp,aggregate", *form, *FREE_PORTS) as services:
        host, _, port = services.addresses(2)["serve-tcp"].rpartition(":")
        with (
            socket.create_connection((host, int(port))) as connection,
            certificates.context().wrap_socket(connection, server_hostname=host) as client,
        ):
            for _ in range(2):
                services.process.send_signal(signal.SIGHUP)
                for _ in ("serve-tcp", "aggregate"):
                    services.heard(r"\[tls\] cert .*: read again")
            client.sendall(encode_frames(["AAPL"], [0], [10**9], [1], [time.time_ns()]).data)
            client.sendall(END_FRAME)
            (ack,) = ReplyDecoder().feed(client.makefile("rb").read())
        assert ack.message == "Accepted 1 tick, refused 0"
        assert services.end(signal.SIGTERM) == 0


@needs_pidfd
@in_both_forms
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_stops_clients_before_their_servers(number, status, form):
    with serve("all", "-J", *form, *FREE_PORTS) as services:
        services.addresses(4)
        with Watch(services.pids().values()) as processes:
            assert services.end(number) == status
            assert processes.all_ended(timeout_s=0)
    said = "".join(services.lines)
    places = [said.index(f"{name}: stopping (terminated)") for name in SERVICES]
    assert places == sorted(places)
    assert "WARNING" not in said
    assert "Traceback" not in said
    assert "killed" not in said


@needs_pidfd
@in_both_forms
def test_nothing_is_left_of_a_supervisor_that_is_killed(form):
    with serve("all", "-J", *form, *FREE_PORTS) as services:
        services.addresses(4)
        with Watch(services.pids().values()) as processes:
            services.process.kill()
            assert processes.all_ended(PATIENCE_S)


@pytest.mark.parametrize(
    ("form", "name"), [(TOGETHER, "services"), *((PROCESSES, name) for name in SERVICES)]
)
def test_what_is_killed_comes_back_at_its_address(form, name):
    with serve("all", "-J", *form, *FREE_PORTS) as services:
        addresses = services.addresses(4)
        assert check(addresses).returncode == 0
        os.kill(services.pids()[name], signal.SIGKILL)
        services.heard(rf"WARNING {name} was killed by SIGKILL; starting it again in")
        services.heard(rf"{name}: running again")
        again = check(addresses)
        assert (again.returncode, again.stderr) == (0, "")
        assert services.end(signal.SIGTERM) == 0


@in_both_forms
@pytest.mark.parametrize("name", SERVICES)
def test_a_taken_port_stops_it_all_with_3(name, form):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = [*form, *FREE_PORTS, f"--{name}-port", port]
        with serve("all", "-J", *options) as services:
            services.heard(rf"{'services' if form == TOGETHER else name}: started as process")
            assert services.end() == 3
            assert services.process.stdout.read() == ""
    last = services.lines[-1]
    error = f"mdtool: {name} could not start: port {port} on 127.0.0.1 is in use;"
    assert last.startswith(error)
    assert last.rstrip().endswith(f"choose another with --{name}-port")
    assert sum(error in line for line in services.lines) == 1
    assert "starting it again" not in "".join(services.lines)


def test_only_some_services_run():
    with serve("all", "-J", "--only", "serve-tcp,aggregate", *FREE_PORTS) as services:
        addresses = services.addresses(2)
        assert list(addresses) == ["serve-tcp", "aggregate"]
        checked = check(addresses, "--only", "serve-tcp,aggregate", "-J")
        assert len(checked.stdout.splitlines()) == 2
        assert checked.stderr == ""
        assert services.end(signal.SIGTERM) == 0


def test_people_get_a_table_of_addresses():
    with serve("all", *FREE_PORTS) as services:
        services.heard("serve: ready; nothing is stored")
        said = [line.partition("INFO")[2].strip() for line in services.lines]
        assert said[0].startswith("services: started as process ")
        ready = [line.partition(": ready on ")[0] for line in said if ": ready on " in line]
        assert sorted(ready) == sorted(SERVICES)
        heading, *rows = [services.process.stdout.readline().split() for _ in range(5)]
        assert heading == ["service", "address", "speaks"]
        assert tuple(row[0] for row in rows) == SERVICES
        gateway = rows[1][1]
        assert gateway.startswith("http://127.0.0.1:")
        assert services.process.stdout.readline() == "\n"
        opened, *tried = [services.process.stdout.readline() for _ in range(4)]
        assert opened.startswith(f"Open  {gateway} (the market), /docs ")
        commands = ["curl", "mdtool watch", "mdtool send --simulate"]
        for line, command in zip(tried, commands, strict=True):
            assert line.startswith(f"Try   {command} ")
        assert services.end(signal.SIGTERM) == 0


@in_both_forms
def test_the_log_can_be_json_all_of_it(form):
    with serve("all", "-J", *form, *FREE_PORTS, before=["--log-format", "json"]) as services:
        services.addresses(4)
        assert services.end(signal.SIGTERM) == 0
    entries = [json.loads(line) for line in services.lines]
    own = {"services", None} if form == TOGETHER else {None}
    assert {entry.get("service") for entry in entries} == {*SERVICES, *own}


def test_a_wrong_setting_of_one_service_starts_none(tmp_path):
    (tmp_path / "mdtool.toml").write_text("[gateway]\nno-such-key = 1\n")
    with serve("all", *FREE_PORTS) as services:
        assert services.end() == 2
    assert services.lines[0].startswith("mdtool: mdtool.toml: [gateway] no-such-key: no such")
    assert len(services.lines) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "serve what?"),
        (["gateway"], 2, "serve gateway: no such services"),
        (["all", "--only", "gatewya"], 2, "--only gatewya: no such service"),
        (["all", "--simulate", "--replay", "f.dbn"], 2, "choose one"),
        (["all", "--replay", "nowhere.dbn"], 1, "nowhere.dbn: no such file"),
        (["--check", "--serve-tcp-port", "1"], 1, f"serve-tcp {AWAY}"),
    ],
)
def test_what_cannot_run_is_one_line(arguments, status, message):
    with serve(*arguments) as services:
        assert services.end() == status
    assert len(services.lines) == 1
    assert message in services.lines[0]


def test_a_check_names_the_service_that_is_unavailable():
    with serve("all", "-J", "--only", "serve-tcp,aggregate", *FREE_PORTS) as services:
        addresses = services.addresses(2)
        for name in ("gateway", "vwap"):
            only = f"serve-tcp,aggregate,{name}"
            without = check({**addresses, name: "127.0.0.1:1"}, "--only", only)
            assert without.returncode == 1
            assert f"{name} {AWAY}" in without.stderr
        without_aggregate = check({**addresses, "aggregate": "127.0.0.1:1"}, "--only", "serve-tcp")
        assert without_aggregate.returncode == 1
        assert "aggregator 127.0.0.1:1 is unavailable" in without_aggregate.stderr


def test_services_are_ready_or_one_line_says_why_not():
    with serve("all", "-J", "--only", "serve-tcp,aggregate,vwap", *FREE_PORTS) as services:
        addresses = services.addresses(3)
        assert ready(addresses).returncode == 0
        for name in addresses:
            missing = ready({**addresses, name: "127.0.0.1:1"})
            assert missing.returncode == 1
            assert missing.stderr.decode().startswith(f"mdtool: {name} 127.0.0.1:1 is not ready: ")
            assert missing.stderr.count(b"\n") == 1


def test_a_gateway_that_knows_nothing_is_not_ready():
    with service("gateway", "--port", "0", "--aggregator", "127.0.0.1:1") as gateway:
        found = ready({"gateway": gateway.address})
        assert found.returncode == 1
        assert b'is not ready: {"status":"unavailable"}' in found.stderr


def ready(addresses):
    """Ask services, by the command that checks the health of containers."""
    ports = [f"--{name}-port={at.rpartition(':')[2]}" for name, at in addresses.items()]
    return completed("serve", "--ready", "--only", ",".join(addresses), *ports)


def test_it_reports_its_store_and_restores_its_state(tmp_path):
    options = ["--only", "serve-tcp,aggregate", "--data-dir", str(tmp_path / "d"), *FREE_PORTS]
    for known in ("0 symbols and 0 trades", "1 symbol and 1 trade"):
        with serve("all", "-J", *options) as services:
            services.heard(rf"sqlite {tmp_path}/d/mdtool.db: restored {known}")
            services.heard(rf"stored in sqlite {tmp_path}/d/mdtool.db")
            addresses = services.addresses(2)
            send_tick(addresses["serve-tcp"], "AAPL")
            checked = check(addresses, "--only", "serve-tcp,aggregate")
            assert checked.returncode == 0
            assert services.end(signal.SIGTERM) == 0
