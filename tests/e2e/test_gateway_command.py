"""`mdtool gateway` as a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys

import pytest

from tests.support.processes import ChildProcess
from tests.support.services import service

NOBODY = "127.0.0.1:1"


def gateway(*options: str, under=(), **streams) -> ChildProcess[str]:
    command = [*under, sys.executable, "-m", "mdtool", "gateway", *options]
    return ChildProcess(command, text=True, **streams)


@contextlib.contextmanager
def running(under=()):
    """A gateway without an aggregator, and its host and port."""
    with service("gateway", "--port", "0", "--aggregator", NOBODY, under=under) as running_service:
        yield running_service.process, running_service.address


def test_it_says_where_it_is_and_stops_at_a_signal():
    with running() as (process, address):
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/health")
        with connection.getresponse() as response:
            assert response.status == 503
            assert json.load(response)["aggregator"]["address"] == NOBODY
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        connection.close()


def test_it_serves_more_connections_than_files_are_allowed_at_first():
    few = ("sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh")
    with running(under=few) as (_, address), contextlib.ExitStack() as connections:
        for _ in range(100):
            connection = http.client.HTTPConnection(address)
            connections.callback(connection.close)
            connection.request("GET", "/health")
            assert connection.getresponse().read()


def test_a_taken_port_ends_it_with_3_and_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = gateway("--port", port, "--aggregator", NOBODY, stderr=subprocess.PIPE)
        _, told = process.communicate()
    assert process.returncode == 3
    assert f"port {port} on 127.0.0.1 is in use" in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--aggregator", "nowhere"),
        ("--port", "65536"),
        ("--timeout-ms", "0"),
        ("--max-sockets", "-1"),
        ("--store", "oracle://here"),
        ("--store", "sqlite:"),
    ],
)
def test_wrong_settings_end_it_with_2(options):
    process = gateway("--port", "0", *options, stderr=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode == 2
    assert told.startswith("mdtool: ")
