"""A real PgBouncer in front of a PostgreSQL server."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from mdtool.core.tcp import ReservedPort
from tests.support.postgres_servers import PASSWORD, USER, PostgresServer
from tests.support.processes import ChildProcess
from tests.support.requirements import needs
from tests.support.waiting import wait_until

_CONFIG = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
pool_mode = {mode}
server_round_robin = {round_robin}
default_pool_size = {size}
"""


@contextlib.contextmanager
def pgbouncer(
    server: PostgresServer, url: str, mode: str, *, round_robin: bool = False, size: int = 10
):
    """Yield the URL of a database of a server through a pool, until the block ends."""
    program = needs("pgbouncer")
    with (
        tempfile.TemporaryDirectory(prefix="pgbouncer-") as name,
        ReservedPort("127.0.0.1") as held,
    ):
        folder = Path(name)
        (folder / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        config = folder / "config"
        config.write_text(
            _CONFIG.format(
                server=server.port,
                port=held.port,
                folder=folder,
                mode=mode,
                round_robin=int(round_robin),
                size=size,
            )
        )
        for path in (folder, folder / "users", config):
            server.own(path)
        pooled = url.replace(f":{urlsplit(url).port}", f":{held.port}")
        with ChildProcess(
            server.as_account([program, str(config)]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_until(lambda: _answers(pooled))
                yield pooled
            finally:
                process.kill()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url.partition("?")[0]).close()
    except psycopg.OperationalError:
        return False
    return True
