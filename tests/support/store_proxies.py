"""TCP proxies before the servers of stores, which lose or spoil a request or its answer."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Final

import bson

from mdtool.core.tcp import bind


class Proxy:
    """Connects each client to a server; `_serve` says what is forwarded."""

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self._target = port
        self._sockets: list[socket.socket] = []
        self._listener = bind("127.0.0.1", 0)[0]
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self):
        self._accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._serve(client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        raise NotImplementedError


class PostgresProxy(Proxy):
    """Can lose a commit, or the answer to one."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._cut = ""
        self._cutting: set[socket.socket] = set()

    def cut_next_commit(self, when: str) -> None:
        """Drop the client `before` the server receives its commit, or `after` it is done."""
        self._cut = when

    def _serve(self, client, server):
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._cut and b"COMMIT" in data:
                    self.cuts += 1
                    when, self._cut = self._cut, ""
                    if when == "before":
                        break
                    self._cutting.add(source)
                elif sink in self._cutting:
                    break
                sink.sendall(data)
        _shut(source, sink)


WRITES: Final = frozenset({"insert", "update", "delete"})
Answer = dict[str, Any]
Failure = Callable[[Callable[[], Answer], socket.socket], Answer | None]
"""What answers instead, None to drop the client; it may forward the request."""


class MongoProxy(Proxy):
    """Forwards commands and their answers, until one is to fail."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._failure: Failure = lost_request
        self._is_due: Callable[[Answer], bool] = lambda _: False

    def fail(self, failure: Failure, is_due: Callable[[Answer], bool]) -> None:
        """Have each command fail for which that holds."""
        self._failure, self._is_due = failure, is_due

    def fail_write(self, failure: Failure, number: int = 0) -> None:
        """Have one write fail, that of a number from now on, from 0."""
        numbers = itertools.count()
        self.fail(failure, lambda each: _name(each) in WRITES and next(numbers) == number)

    def cut_next_commit(self, when: str) -> None:
        """Drop the client `before` the server receives its commit, or `after` it is done."""
        numbers = itertools.count()
        self.fail(
            {"before": lost_request, "after": lost_answer}[when],
            lambda each: each.get("update") == "market" and next(numbers) == 0,
        )

    def _serve(self, client, server):
        threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client, server):
        with contextlib.suppress(OSError):
            while request := _message(client):

                def forward(request=request):
                    server.sendall(request)
                    return _document(_message(server))

                if _is_command(request) and self._is_due(_document(request)):
                    self.cuts += 1
                    answer = self._failure(forward, client)
                    if answer is None:
                        break
                    client.sendall(_answered(request, answer))
                else:
                    server.sendall(request)
                    client.sendall(_message(server))
        _shut(client, server)


def lost_request(_forward, _client) -> None:
    """Drop the client before the server receives its request."""


def lost_answer(forward, _client) -> None:
    """Drop the client after its request was done."""
    forward()


def silence(forward, client) -> None:
    """Answer nothing until the client leaves; the request was done."""
    forward()
    client.recv(1)


def rejected(code: int) -> Failure:
    """Answer an error in place of the server."""
    return lambda _forward, _client: {"ok": 0.0, "code": code, "errmsg": f"so nicht: {code}"}


def interrupted(code: int) -> Failure:
    """Answer an error of each document, after the request was done."""

    def failure(forward, _client):
        forward()
        error = {"index": 0, "code": code, "errmsg": f"so nicht: {code}"}
        return {"ok": 1.0, "n": 0, "nModified": 0, "writeErrors": [error]}

    return failure


def not_replicated(forward, _client) -> Answer:
    """Answer that no majority has confirmed in time what was done."""
    error = {"code": 64, "errmsg": "waiting for replication timed out"}
    return {**forward(), "writeConcernError": error}


_OP_MSG: Final = 2013
_HEADER: Final = struct.Struct("<iiii")
"""Length, number, number of the request, kind."""
_BODY: Final = _HEADER.size + 4 + 1
"""Where the document of a command begins: after its flags and the kind of its section."""


def _message(source: socket.socket) -> bytes:
    """Return the next message, nothing at the end."""
    size = source.recv(4, socket.MSG_WAITALL)
    if len(size) < 4:
        return b""
    return size + source.recv(int.from_bytes(size, "little") - 4, socket.MSG_WAITALL)


def _is_command(request: bytes) -> bool:
    return _HEADER.unpack_from(request)[3] == _OP_MSG


def _document(message: bytes) -> Answer:
    end = _BODY + int.from_bytes(message[_BODY : _BODY + 4], "little")
    return bson.decode(message[_BODY:end])


def _answered(request: bytes, answer: Answer) -> bytes:
    body = struct.pack("<IB", 0, 0) + bson.encode(answer)
    number = _HEADER.unpack_from(request)[1]
    return _HEADER.pack(_HEADER.size + len(body), 1, number, _OP_MSG) + body


def _name(command: Answer) -> str:
    return next(iter(command))


def _shut(*ends: socket.socket) -> None:
    for each in ends:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
