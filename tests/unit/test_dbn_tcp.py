"""DBN streams read from a TCP server."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

import numpy as np
import pytest

from mdtool.adapters.dbn_tcp import connect_source
from mdtool.core.errors import CorruptStreamError, InputError, PeerError
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams


@pytest.fixture
def serve():
    """Start a server that does something with its one connection; return its address."""
    threads, listeners = [], []

    def start(behave: Callable[[socket.socket], None]) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                behave(connection)

        threads.append(threading.Thread(target=accept))
        threads[-1].start()
        return listener.getsockname()

    yield start
    for thread in threads:
        thread.join()
    for listener in listeners:
        listener.close()


def test_a_stream_is_read_to_its_end(serve):
    orders = streams.mbo(10_000)
    data = streams.header() + encode_records(orders)
    host, port = serve(lambda connection: connection.sendall(data))
    with connect_source(host, port) as source:
        assert source.name == f"127.0.0.1:{port}"
        assert source.size_bytes is None
        assert source.metadata.dataset == "TEST"
        assert np.array_equal(np.concatenate(list(source)), orders)


def test_one_that_ends_within_a_record_is_corrupt(serve):
    data = streams.header() + encode_records(streams.mbo(3))[:-1]
    address = serve(lambda connection: connection.sendall(data))
    with (
        connect_source(*address) as source,
        pytest.raises(CorruptStreamError, match=r"127\.0\.0\.1:"),
    ):
        list(source)


def test_a_connection_that_breaks_is_told_from_an_end(serve):
    has_read = threading.Event()

    def reset(connection: socket.socket) -> None:
        connection.sendall(streams.header() + encode_records(streams.mbo(3)))
        has_read.wait()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with connect_source(*serve(reset)) as source:
        records = iter(source)
        next(records)
        has_read.set()
        with pytest.raises(InputError, match="the connection broke"):
            list(records)


def test_what_is_no_dbn_is_refused(serve):
    address = serve(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 9))
    with pytest.raises(InputError, match=r"127\.0\.0\.1:"):
        connect_source(*address)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerError, match=f"127.0.0.1:{port}: Connection refused; is a sender"):
        connect_source("127.0.0.1", port)


def test_no_such_host():
    with pytest.raises(PeerError, match=r"nowhere\.invalid:9090: "):
        connect_source("nowhere.invalid", 9090)


def test_closing_ends_a_read_in_another_thread(serve):
    is_over = threading.Event()

    def keep_open(connection: socket.socket) -> None:
        connection.sendall(streams.header())
        is_over.wait()

    source = connect_source(*serve(keep_open))
    records = iter(source)

    def read() -> None:
        with contextlib.suppress(InputError):  # closed before it had begun to wait
            next(records, None)

    reader = threading.Thread(target=read)
    reader.start()
    source.close()
    reader.join()
    is_over.set()
