"""A real PostgreSQL server on a free port, which can be killed, and databases in it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg

from mdtool.core.tcp import ReservedPort
from tests.support.requirements import missing, needs

USER: Final = "mdtool"
PASSWORD: Final = "pass:w@rd/1"
_URL_PASSWORD: Final = "pass%3Aw%40rd%2F1"
_ACCOUNTS: Final = ("postgres", "nobody")
_START_S: Final = 60
_GUARD: Final = 'read _; kill -QUIT "$0"; kill -CONT "$0"'
"""A shell that ends the server when what it reads from does, and so with the process of a test."""
_DATABASES: Final = itertools.count(1)


class PostgresServer:
    """One server at one address, whose data survives kills and restarts.

    Attributes
    ----------
    port : int
    log : Path
        Its log file.
    account : str or None
        The user whom it runs as, None for this one.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.log = folder / "log"
        self._data = folder / "data"
        self._postgres = needs("postgres")
        self._initdb = needs("initdb")
        self.account = _account()
        self.own(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def initialize(self) -> None:
        """Create an empty cluster, with password authentication."""
        words = self._data.with_name("password")
        words.write_text(PASSWORD)
        self.own(words)
        self._run(
            *(self._initdb, "--pgdata", self._data, "--username", USER, "--pwfile", words),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
        )

    def start(self) -> None:
        """Start it, and wait until it accepts statements."""
        command = [
            *(self._postgres, "-D", self._data, "-p", str(self.port)),
            *("-c", "unix_socket_directories=", "-c", "shared_buffers=64MB"),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=40"),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.as_account(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        guard = ["sh", "-c", _GUARD, str(self._process.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE)
        ends = psycopg.errors.OperationalError
        for _ in range(_START_S * 20):
            assert self._process.poll() is None, self.log.read_text()
            with contextlib.suppress(ends), self.connect("postgres"):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """Shut it down immediately, as in a crash."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Shut it down fast, but in order."""
        self._end(signal.SIGINT)

    def become_standby(self, is_standby: bool) -> None:
        """Restart it as a read-only standby, or as a primary."""
        self.stop()
        signal_file = self._data / "standby.signal"
        if is_standby:
            signal_file.touch()
            self.own(signal_file)
        else:
            signal_file.unlink()
        self.start()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop its processes."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # it forks no more
        self._signal_children(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue its processes."""
        self._signal_children(signal.SIGCONT)
        self._process.send_signal(signal.SIGCONT)

    def connect(self, database: str) -> psycopg.Connection:
        """Connect as the superuser; statements are transactions of their own."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=60)

    def url(self, database: str) -> str:
        """Return the URL of a database, with user and password."""
        return f"postgresql://{USER}:{_URL_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Return the name of a new database."""
        name = f"test{os.getpid()}_{next(_DATABASES)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def new_url(self) -> str:
        """Return the URL of a new database, with user and password."""
        return self.url(self.create_database())

    def own(self, folder: Path) -> None:
        """Hand a folder to the user that the server runs as."""
        if self.account is not None:
            shutil.chown(folder, self.account)

    def _signal_children(self, number: signal.Signals) -> None:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            with contextlib.suppress(ProcessLookupError):  # as of a client that left just before
                os.kill(child, number)

    def _end(self, number: signal.Signals) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.communicate()
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait()

    def as_account(self, command: Sequence[str | Path]) -> list[str | Path]:
        """Return what runs a command as the server's user.

        Python would fork for that, and the child of a process with gRPC's threads may crash then.
        """
        if self.account is None:
            return list(command)
        group = pwd.getpwnam(self.account).pw_gid
        change = (f"--reuid={self.account}", f"--regid={group}", "--clear-groups")
        return [needs("setpriv"), *change, *command]

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            self.as_account(command),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode:
            missing(f"initdb failed: {done.stderr.strip()[-500:]}")


@contextlib.contextmanager
def postgres_server():
    """A server that runs until the block ends, unless it is killed meanwhile."""
    # Not below a folder of pytest's, which only its own user may enter.
    with (
        tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder,
        ReservedPort("127.0.0.1") as held,
    ):
        server = PostgresServer(Path(folder), held.port)
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.kill()


@functools.cache
def shared_server() -> PostgresServer:
    """Return a server for all tests of a process, which must leave it running."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgres_server())


def _account() -> str | None:
    """Return the user to run servers as, since they reject root."""
    if os.getuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    return missing("PostgreSQL runs as no root, and there is no other user")
