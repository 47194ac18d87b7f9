"""Ports that are held for a process to come."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mdtool.core.errors import StartupError
from mdtool.core.tcp import ReservedPort


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_a_server_listens_on_its_reserved_port(host):
    with ReservedPort(host) as holder:
        for _ in range(2):  # and once more after it was restarted
            server = await asyncio.start_server(lambda _r, w: w.close(), host, holder.port)
            reader, writer = await asyncio.open_connection("127.0.0.1", holder.port)
            assert await reader.read() == b""
            writer.close()
            server.close()
            await server.wait_closed()


def test_a_reserved_port_rejects_connections():
    with ReservedPort("127.0.0.1") as holder, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", holder.port))


def test_ports_reserved_at_once_differ():
    with ReservedPort("127.0.0.1") as one, ReservedPort("127.0.0.1") as other:
        assert one.port != other.port


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_rejected(host):
    with pytest.raises(StartupError, match=f"cannot listen on {host}"):
        ReservedPort(host)
