"""A TCP proxy before a PostgreSQL server that can lose a commit, or the answer to one."""

from __future__ import annotations

import contextlib
import socket
import threading

from mdtool.core.tcp import bind

COMMIT = b"COMMIT"


class Proxy:
    """Forwards bytes, until it cuts: then it drops the next client that commits, unanswered."""

    def __init__(self, port):
        self.cuts = 0
        self._target = port
        self._cut = ""
        self._cutting = set()
        self._sockets = []
        self._listener = bind("127.0.0.1", 0)[0]
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)

    def __enter__(self):
        self._accepting.start()
        return self

    def __exit__(self, *exc_info):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for each in self._sockets:
            each.close()

    def cut_next_commit(self, when):
        """Drop the client `before` the server receives its commit, or `after` it is done."""
        self._cut = when

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._cut and COMMIT in data:
                    self.cuts += 1
                    when, self._cut = self._cut, ""
                    if when == "before":
                        break
                    self._cutting.add(source)
                elif sink in self._cutting:
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
