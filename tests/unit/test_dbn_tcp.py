"""DBN streams read from a TCP server."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
from collections.abc import Callable

import numpy as np
import pytest

from mdtool.adapters import dbn_tcp
from mdtool.adapters.dbn_tcp import connect_source
from mdtool.core.dtypes import MBO
from mdtool.core.errors import CorruptStreamError, InputError, PeerError
from mdtool.core.tcp import ReservedPort
from mdtool.wire.dbn import encode_records
from mdtool.wire.dbn_session import Begin, End, Refused, encode_begin, encode_end, encode_refused
from tests.reference import dbn_streams as streams
from tests.support.instruments import bare
from tests.support.waiting import WITHIN_S


class WatchedSocket:
    """A socket that tells when it is about to be read, and whose close ends no read, as in C."""

    def __init__(self, connection: socket.socket) -> None:
        self.is_read = threading.Event()
        self._connection = connection

    def recv(self, n_bytes: int) -> bytes:
        self.is_read.set()
        return self._connection.recv(n_bytes)

    def close(self) -> None:
        """Do nothing: a read that waits would go on, and only one that begins later would fail."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


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
                with contextlib.suppress(OSError):  # reset on purpose
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(100):
                        pass

        threads.append(threading.Thread(target=accept, daemon=True))
        threads[-1].start()
        return listener.getsockname()

    yield start
    for thread in threads:
        thread.join(WITHIN_S)
        assert not thread.is_alive(), "the server still waits for its client"
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
        assert np.array_equal(np.concatenate(list(bare(source))), orders)


def test_one_that_ends_within_a_record_is_corrupt(serve):
    data = streams.header() + encode_records(streams.mbo(3))[:-1]
    address = serve(lambda connection: connection.sendall(data))
    with (
        connect_source(*address) as source,
        pytest.raises(CorruptStreamError, match=r"127\.0\.0\.1:"),
    ):
        list(bare(source))


def test_a_server_that_speaks_first_is_asked_nothing(serve, monkeypatch):
    monkeypatch.setattr(dbn_tcp, "FIRST_WORD_S", 60)
    asked = queue.SimpleQueue()

    def send(connection: socket.socket) -> None:
        connection.sendall(streams.header())
        connection.shutdown(socket.SHUT_WR)
        asked.put(connection.recv(100))

    with connect_source(*serve(send)) as source:
        assert list(bare(source)) == []
        source.close()
    assert asked.get() == b""


def reset_after(data: bytes, has_read: threading.Event) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(data)
        has_read.wait()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return behave


def test_a_reset_ends_a_stream_but_not_without_a_word(serve, caplog):
    has_read = threading.Event()
    data = streams.header() + encode_records(streams.mbo(3))
    with connect_source(*serve(reset_after(data, has_read))) as source:
        records = iter(source)
        assert len(next(records)) == 3
        has_read.set()
        assert list(records) == []
    assert "the connection was reset, perhaps before its stream ended" in caplog.text


def test_a_reset_is_no_end_of_a_sender_s_stream(serve):
    has_read = threading.Event()
    data = streams.header() + encode_begin(Begin("s", 0), streams.START)
    with connect_source(*serve(reset_after(data, has_read))) as source:
        records = iter(source)
        next(records)
        has_read.set()
        with pytest.raises(InputError, match="the connection was reset"):
            list(records)


def test_a_reset_before_anything_is_no_stream(serve):
    has_read = threading.Event()
    has_read.set()
    with pytest.raises(InputError, match="the connection was reset"):
        connect_source(*serve(reset_after(b"", has_read)))


def test_a_sender_s_stream_is_whole_with_its_last_word(serve):
    data = (
        streams.header()
        + encode_begin(Begin("s", 7), streams.START)
        + encode_records(streams.mbo(3))
        + encode_end(End("s", 10), streams.START)
    )
    asked = []

    def send(connection: socket.socket) -> None:
        asked.append(connection.recv(100))
        connection.sendall(data)

    with connect_source(*serve(send)) as source:
        runs = list(bare(source))
    assert asked == [b"from=live\n"]
    assert sum(len(run) for run in runs if run.dtype == MBO) == 3


def test_a_sender_that_vanishes_is_no_end(serve):
    data = (
        streams.header()
        + encode_begin(Begin("s", 7), streams.START)
        + encode_records(streams.mbo(3))
    )
    address = serve(lambda connection: connection.sendall(data))
    with connect_source(*address) as source:
        records = iter(source)
        runs = [next(records), next(records)]
        with pytest.raises(InputError, match="ended before the stream did"):
            next(records)
    assert len(runs[1]) == 3


def test_a_sender_that_refuses_is_quoted(serve):
    data = streams.header() + encode_refused(Refused("no more seats", is_final=True), streams.START)
    address = serve(lambda connection: connection.sendall(data))
    with connect_source(*address) as source, pytest.raises(PeerError, match=": no more seats"):
        list(bare(source))


def test_what_was_left_out_is_said(serve, caplog):
    data = (
        streams.header()
        + encode_begin(Begin("s", 7), streams.START)
        + encode_begin(Begin("s", 99, skipped=80), streams.START)
        + encode_end(End("s", 99), streams.START)
    )
    address = serve(lambda connection: connection.sendall(data))
    with connect_source(*address) as source:
        list(bare(source))
    assert "too fast to follow" in caplog.text


def test_a_stream_that_has_not_begun_is_waited_for_with_a_word(serve, caplog):
    """The server waits for that word itself."""
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for its stream to begin" in record.getMessage():
                said.set()

    def send(connection: socket.socket) -> None:
        said.wait()
        connection.sendall(streams.header())

    caplog.set_level(logging.INFO)
    listener = Listener()
    logging.getLogger("mdtool.adapters.dbn_tcp").addHandler(listener)
    try:
        with connect_source(*serve(send)) as source:
            assert list(bare(source)) == []
    finally:
        logging.getLogger("mdtool.adapters.dbn_tcp").removeHandler(listener)


def test_what_is_no_dbn_is_refused(serve):
    address = serve(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 9))
    with pytest.raises(InputError, match=r"127\.0\.0\.1:"):
        connect_source(*address)


def test_nobody_there():
    with ReservedPort("127.0.0.1") as held:
        port = held.port
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
    raw = source._connection
    connection = source._connection = WatchedSocket(raw)
    ends = queue.SimpleQueue()

    def read() -> None:
        ends.put(list(bare(source)))

    threading.Thread(target=read, daemon=True).start()
    try:
        assert connection.is_read.wait(WITHIN_S)
        assert ends.empty()
        source.close()
        assert ends.get(timeout=WITHIN_S) == []
    finally:
        raw.close()
        is_over.set()
