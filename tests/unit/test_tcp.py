"""TCP connections whose other end may vanish."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mdtool.core.addresses import parse_address
from mdtool.core.tcp import NO_ADDRESS, listen, notice_loss, reason_of


def test_a_connection_is_probed_and_given_up():
    with socket.socket() as connection:
        notice_loss(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the options are Linux's")
def test_half_a_minute_is_how_long_it_may_take():
    with socket.socket() as connection:
        notice_loss(connection)

        def option(name: str) -> int:
            return connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        idle_s = option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
        assert idle_s <= 30
        assert option("TCP_USER_TIMEOUT") <= 30_000


async def test_why_there_is_no_connection_is_told_in_words(free_port):
    with pytest.raises(OSError, match=r"Errno") as refused:
        await asyncio.open_connection("127.0.0.1", free_port)
    assert reason_of(refused.value) == "Connection refused"
    with pytest.raises(socket.gaierror) as unknown:
        await asyncio.open_connection("nowhere.invalid", free_port)
    assert reason_of(unknown.value) == unknown.value.strerror
    assert reason_of(OSError("Multiple exceptions: [Errno 111] ...")) == NO_ADDRESS
    assert reason_of(ConnectionError("closed the connection")) == "closed the connection"


async def test_small_writes_are_sent_at_once():
    """A write that waits for the peer's delayed acknowledgement is 40 ms late."""
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    def protocol() -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), connected)

    server = await listen(protocol, "127.0.0.1", 0)
    try:
        _, writer = await asyncio.open_connection(*parse_address(server.address))
        assert await accepted
        writer.close()
        await writer.wait_closed()
    finally:
        server.close()
