"""TCP connections whose other end may vanish."""

from __future__ import annotations

import socket

import pytest

from mdtool.core.tcp import notice_loss


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
