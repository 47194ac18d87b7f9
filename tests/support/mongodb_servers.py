"""A real server of MongoDB's protocol on a free port, FerretDB, which can be killed.

Run as `python -m tests.support.mongodb_servers`, it builds the server, so that no test waits for
that.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from mdtool.core.tcp import ReservedPort
from tests.support.requirements import made_once, needs

_SOURCES: Final = Path(__file__).parent / "ferretdb"
_START_S: Final = 60
_DATABASES: Final = itertools.count(1)


class MongoServer:
    """One server at one address, whose data survives kills and restarts.

    Attributes
    ----------
    port : int
    log : Path
        Its log file.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.log = folder / "log"
        self._data = folder / "data"
        self._data.mkdir()
        self._program = program()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        address = f"127.0.0.1:{self.port}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, address, self._data],
                stdin=subprocess.PIPE,  # with which it ends
                stdout=log,
                stderr=log,
            )
        for _ in range(_START_S * 20):
            assert self._process.poll() is None, self.log.read_text()
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=_START_S),
            ):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """Kill it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop its process."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Continue its process."""
        self._process.send_signal(signal.SIGCONT)

    def new_url(self) -> str:
        """Return the URL of a database that is not there yet."""
        return f"mongodb://127.0.0.1:{self.port}/test{os.getpid()}_{next(_DATABASES)}"


def program() -> Path:
    """Return the server, or skip the test where it cannot be built."""
    needs("go")
    files = [_SOURCES / name for name in ("build.sh", "main.go", "go.mod", "go.sum")]
    return made_once("ferretdb", ("sh", "build.sh"), files, "ferretdb")


@contextlib.contextmanager
def mongodb_server():
    """A server that runs until the block ends, unless it is killed meanwhile."""
    with (
        tempfile.TemporaryDirectory(prefix="ferretdb-", ignore_cleanup_errors=True) as folder,
        ReservedPort("127.0.0.1") as held,
    ):
        server = MongoServer(Path(folder), held.port)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@functools.cache
def shared_server() -> MongoServer:
    """Return a server for all tests of a process, which must leave it running."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(mongodb_server())


if __name__ == "__main__":
    print(program())
