"""`mdtool serve-tcp` and `mdtool send` as their users run them."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from mdtool.core.addresses import parse_address
from mdtool.engine.simulate import Exchange
from mdtool.wire.frames import Ack, ReplyDecoder
from tests.support.aggregator_state import Watch, sessions_of
from tests.support.commands import completed
from tests.support.ingest_servers import frame, frames
from tests.support.processes import ChildProcess
from tests.support.services import MDTOOL, service

TICK = b'{"symbol":"AAPL","price":150.25,"volume":100,"exchange_timestamp":1735201234567000000}\n'

SAMPLE = Path(__file__).parents[3] / "sample_data" / "trades.dbn.zst"


@pytest.fixture
def aggregator():
    with service("aggregate", "--port", 0) as running:
        yield running.address


@pytest.fixture
def ingest(aggregator):
    with service("serve-tcp", "--port", 0, "--aggregator", aggregator) as running:
        yield running.address


def trades_file(tmp_path, count):
    """Write so many trades of a simulated market; return the file, and the sessions they make."""
    path = tmp_path / "trades.dbn"
    done = completed("simulate", "--schema", "trades", "--limit", count, "-o", path)
    assert done.returncode == 0, done.stderr
    exchange = Exchange()
    trades = exchange.generate(count * 20, "trades")[:count]
    assert len(trades) == count
    return path, sessions_of(trades, exchange.instruments)


def read_ack(connection):
    decoder = ReplyDecoder()
    while data := connection.recv(1 << 16):
        for reply in decoder.feed(data):
            if isinstance(reply, Ack):
                return reply
    return None


def acknowledged(address, data):
    """Send bytes as a plain client, and return the Ack."""
    with socket.create_connection(parse_address(address)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read_ack(connection)


def test_a_file_of_trades_becomes_sessions(tmp_path, aggregator, ingest):
    path, expected = trades_file(tmp_path, 20_000)
    done = completed("send", path, ingest)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"Accepted 20000 ticks, refused 0; stream 'send-")
    with Watch(aggregator) as watch:
        watch.until(20_000)
        assert watch.sessions == expected


def test_servers_killed_in_mid_stream_lose_and_double_nothing(tmp_path, aggregator, free_port):
    count, kills = 200_000, 3
    path, expected = trades_file(tmp_path, count)
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(Watch(aggregator))
        sending = None
        for k in range(1, kills + 2):
            with service("serve-tcp", "--port", free_port, "--aggregator", aggregator) as running:
                if sending is None:
                    command = [MDTOOL, "send", str(path), running.address, "--rate", "100000"]
                    sending = ChildProcess(command, stdout=subprocess.PIPE)
                    stack.enter_context(sending)
                watch.until(count * k // (kills + 1))
                if k <= kills:
                    running.process.send_signal(signal.SIGKILL)
                    running.process.wait()
                else:
                    said, _ = sending.communicate()
        assert sending.returncode == 0
        assert f"is committed up to {count}\n" in said.decode()
        assert watch.counts.ticks == count
        assert watch.sessions == expected


def test_commands_pipe_into_each_other(tmp_path, aggregator, ingest):
    path, expected = trades_file(tmp_path, 5_000)
    replayed = ChildProcess(
        [MDTOOL, "replay-dbn", str(path), "--speed", "0"], stdout=subprocess.PIPE
    )
    with replayed:
        done = subprocess.run(
            [MDTOOL, "send", "--port", str(parse_address(ingest)[1])],
            stdin=replayed.stdout,
            capture_output=True,
            check=False,
        )
    assert b"Accepted 5000 ticks, refused 0" in done.stdout
    with Watch(aggregator) as watch:
        watch.until(5_000)
        assert watch.sessions == expected


def test_a_partial_book_s_trades_are_sent(real_data, aggregator, ingest):
    done = completed("send", real_data / "CLX5_mbo.dbn", ingest)
    assert b"Accepted 1599 ticks, refused 0" in done.stdout
    with Watch(aggregator) as watch:
        watch.until(1_599)
        assert list(watch.sessions) == ["CLX5"]


def test_json_lines_that_are_not_ticks_are_counted(ingest):
    lines = TICK * 3 + b'{"symbol":"AAPL"}\n' + TICK
    done = completed("send", "-", ingest, stdin=lines)
    assert done.stdout.startswith(b"Accepted 4 ticks, refused 0")
    assert done.returncode == 0
    assert b"stdin: refused line 4: has no 'price'\n" in done.stderr
    assert done.stderr.endswith(b"stdin: refused 1 line (1 price)\n")

    done = completed("send", "-", ingest, "--strict", stdin=lines)
    assert done.stdout.startswith(b"Accepted 3 ticks, refused 0")
    assert done.returncode == 1
    assert done.stderr.endswith(b"mdtool: stdin: line 4: has no 'price'\n")


def test_json_lines_of_a_replay_are_sent(real_data, ingest):
    path = real_data / "dbn" / "test_data.trades.v3.dbn.zst"
    lines = completed("replay-dbn", path, "-J", "-s").stdout
    assert completed("send", ingest, stdin=lines).stdout.startswith(b"Accepted 2 ticks, refused 0")


def test_a_cut_file_is_sent_up_to_the_cut(tmp_path, ingest):
    path, _ = trades_file(tmp_path, 1_000)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    done = completed("send", path, ingest)
    assert done.stdout.startswith(b"Accepted 999 ticks")
    assert done.returncode == 1
    assert b"after 999 whole records" in done.stderr


def test_a_stream_with_a_name_is_sent_once_however_often(tmp_path, aggregator, ingest):
    path, expected = trades_file(tmp_path, 3_000)
    part = completed("send", path, ingest, "--stream-id", "day", "--limit", 1_234)
    assert part.stdout.startswith(b"Accepted 1234 ticks")
    rest = completed("send", path, ingest, "--stream-id", "day")
    assert rest.stdout == b"Accepted 1766 ticks, refused 0; stream 'day' is committed up to 3000\n"
    with Watch(aggregator) as watch:
        watch.until(3_000)
        assert watch.sessions == expected


def test_files_that_are_sent_once_are_recognised_by_their_content(tmp_path, ingest):
    path, _ = trades_file(tmp_path, 1_000)
    assert completed("send", path, ingest, "--once").stdout.startswith(b"Accepted 1000 ticks")
    other = path.with_name("other.dbn")
    path.rename(other)
    known = completed("send", other, ingest, "--once")
    assert known.stdout == b"All 1,000 ticks were committed before; --again sends them again\n"
    again = completed("send", other, ingest, "--once", "--again")
    assert again.stdout.startswith(b"Accepted 1000 ticks")


def test_a_simulated_market_is_sent_at_its_rate_with_times_of_now(aggregator, ingest):
    done = completed("send", "--simulate", "--rate", 2_000, "--limit", 500, ingest)
    assert done.stdout.startswith(b"Accepted 500 ticks, refused 0")
    with Watch(aggregator) as watch:
        watch.until(500)
        assert {"AAPL", "MSFT"} <= watch.sessions.keys()


def test_a_plain_stream_is_sent(ingest):
    done = completed("send", "--simulate", "--limit", 100, "--plain", ingest)
    assert done.stdout == b"Accepted 100 ticks, refused 0\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "said"),
    [
        (["none.dbn"], b"", 1, "none.dbn: no such file"),
        (["/"], b"", 1, "/: is a folder without DBN files"),
        (["-"], b"", 1, "stdin: is empty"),
        (["-"], b"time,price\n1,2\n", 1, "is not a DBN stream"),
        (["--rate", "5", "--speed", "1"], b"", 2, "--rate and --speed: choose one"),
        (["--rate", "-1"], b"", 2, "rate"),
        (["--speed", "nan"], b"", 2, "speed"),
        (["--simulate", "f.dbn"], b"", 2, "--simulate takes no INPUT: leave out f.dbn"),
        (["--simulate", "--speed", "1"], b"", 2, "goes by --rate"),
        (["--simulate", "--start", "2025-01-01"], b"", 2, "not of --simulate"),
        (["-", "-"], b"", 2, "standard input can be read once"),
        (["-", "--symbols", "AAPL"], TICK, 2, "of DBN, not of JSON lines"),
        (["--port", "0"], b"", 2, "port"),
        (["--once"], TICK, 2, "--once: needs INPUT"),
        (["--once", "-"], TICK, 2, "only files are recognised"),
        (["--once", "f.dbn", "--stream-id", "s"], b"", 2, "takes no --plain, --stream-id"),
    ],
)
def test_wrong_input_is_reported_in_one_line(arguments, stdin, status, said):
    done = completed("send", *arguments, stdin=stdin)
    assert done.returncode == status, done.stderr
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_an_unavailable_server_is_reported_in_one_line(free_port):
    done = completed("send", "--port", free_port, "--connect-timeout-s", 2, stdin=TICK)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"mdtool: 127.0.0.1:{free_port}: Connection refused; is mdtool serve-tcp running there?\n"
    )


def test_a_sender_that_waits_for_its_input_can_be_interrupted(aggregator, ingest):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ChildProcess([MDTOOL, "send", ingest], **pipes) as waiting:
        waiting.stdin.write(TICK)
        waiting.stdin.flush()
        with Watch(aggregator) as watch:
            watch.until(1)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait() == 130
        said = waiting.stderr.read().decode()
    assert "interrupted after 1 ticks" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(["--simulate", "--rate", "1000"], id="without an end"),
        pytest.param([SAMPLE, "--rate", "50"], id="a file that is read ahead of its pace"),
    ],
)
def test_progress_is_shown_to_people(ingest, source):
    screen, terminal = pty.openpty()
    command = [MDTOOL, "send", ingest, *source]
    with ChildProcess(command, stdout=subprocess.PIPE, stderr=terminal) as sending:
        os.close(terminal)
        shown = b""
        while b"ticks, " not in shown:
            shown += os.read(screen, 1024)
        sending.send_signal(signal.SIGINT)
        assert sending.wait() == 130
    assert b"%" not in shown
    os.close(screen)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = completed("serve-tcp", "--port", port)
    assert done.returncode == 3
    assert done.stderr.decode().splitlines()[-1] == (
        f"mdtool: port {port} on 127.0.0.1 is in use; stop what listens there, or choose another "
        "with --port"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean(aggregator, number):
    with service("serve-tcp", "--port", 0, "--aggregator", aggregator) as running:
        assert acknowledged(running.address, frames(3)).success
        status, said = running.end(number)
    assert status == (130 if number == signal.SIGINT else 0)
    assert "stopping" in said
    assert "Traceback" not in said


def test_ticks_wait_for_an_aggregator_that_is_not_there(free_port):
    address = f"127.0.0.1:{free_port}"
    with (
        service("serve-tcp", "--port", 0, "--aggregator", address) as running,
        socket.create_connection(parse_address(running.address)) as client,
    ):
        client.sendall(frames(3))
        client.shutdown(socket.SHUT_WR)
        with service("aggregate", "--port", free_port), Watch(address) as watch:
            assert read_ack(client) == Ack(True, "Accepted 3 ticks, refused 0")
            watch.until(3)
            assert watch.counts.ticks == 3


def test_a_stop_without_an_aggregator_reports_what_is_uncommitted(free_port):
    address = f"127.0.0.1:{free_port}"
    with (
        service("serve-tcp", "--port", 0, "--aggregator", address) as running,
        socket.create_connection(parse_address(running.address)) as client,
    ):
        client.sendall(frames(3) + bytes(4))
        assert not read_ack(client).success  # so the ticks before the wrong frame are taken
        status, said = running.end(signal.SIGTERM)
    assert status == 1
    assert f"stopped with 3 ticks taken that aggregator {address} has not committed" in said


def test_uncommitted_floods_are_blocked_in_bounded_memory(free_port):
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(
            service("serve-tcp", "--port", 0, "--aggregator", f"127.0.0.1:{free_port}")
        )
        clients = [
            stack.enter_context(socket.create_connection(parse_address(running.address)))
            for _ in range(4)
        ]
        data = frames(30_000)
        before_mb = resident_mb(running.process.pid)
        sent = 0
        for client in clients:
            client.setblocking(False)
        # However short a pause is taken for a standstill: the bounds hold at any time.
        while writable := select.select([], clients, [], 1.0)[1]:
            for client in writable:
                sent += client.send(data)
        assert sent < 100 << 20
        assert resident_mb(running.process.pid) - before_mb < 100


def resident_mb(pid):
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() / (1 << 20)


@pytest.fixture
def many_files():
    """Let this process open some thousands of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_000:
        pytest.skip(f"the system lets a process open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_clients_at_once_whatever_the_shell_s_limit(many_files, aggregator):
    options = ("serve-tcp", "--port", 0, "--aggregator", aggregator)
    limited = ("sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(service(*options, under=limited))
        clients = [
            stack.enter_context(socket.create_connection(parse_address(running.address)))
            for _ in range(1_000)
        ]
        for k, client in enumerate(clients):
            client.sendall(frame(symbol=f"S{k}") * 3)
        for client in clients:
            client.shutdown(socket.SHUT_WR)
        for client in clients:
            assert read_ack(client) == Ack(True, "Accepted 3 ticks, refused 0")
        with Watch(aggregator) as watch:
            watch.until(3_000)
            assert watch.counts.ticks == 3_000
            assert len(watch.sessions) == 1_000
