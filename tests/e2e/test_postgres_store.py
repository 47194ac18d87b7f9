"""A store in PostgreSQL: failures of servers and connections, and several clients."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import (
    StoreClaimedError,
    StoreError,
    StoreFormatError,
    StoreInterruptedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.port import SymbolTotals
from mdtool.adapters.stores.postgresql import connection
from mdtool.adapters.stores.postgresql.store import _STATEMENTS
from mdtool.core.errors import EXIT_STARTUP, ConfigError
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres_servers import PASSWORD, postgres_server
from tests.support.stores import MS, NOON_NS, claim_when_free, step, until_taken
from tests.support.stream_writer import SYMBOLS, frames
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
FRAMES = 2_000


@pytest.fixture
def store(postgres_url):
    with open_store(postgres_url) as store:
        yield store


@pytest.fixture
def other(postgres, postgres_url):
    """Another client of the same database, whose statements are transactions of their own."""
    with postgres.connect(postgres_url.rpartition("/")[2]) as connection:
        connection.execute("SET search_path = mdtool")
        yield connection


@pytest.fixture(scope="module")
def mortal_server():
    """A server that tests kill, and that runs again when they end."""
    with postgres_server() as server:
        yield server


def disconnect_all(connection):
    """Have the server end all other connections to a database."""
    connection.execute(
        "SELECT pg_terminate_backend(pid, 100000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def totals(count, streams=1):
    """The totals after so many frames of so many streams."""
    last = NOON_NS + (count - 1) * MS
    half = streams * count // 2
    return [SymbolTotals("AAPL", half, last - MS), SymbolTotals("MSFT", half, last)]


def test_idle_connections_that_the_server_closed_are_reopened(store, other):
    store.write(step(SYMBOLS, frames("a", 0, 10)))
    disconnect_all(other)
    store.write(step(SYMBOLS, frames("a", 10, 10)))
    disconnect_all(other)
    assert store.symbols() == totals(20)


def test_a_market_that_was_claimed_is_claimed_again_with_the_connection(store, other, postgres_url):
    store.claim()
    disconnect_all(other)
    store.write(step(SYMBOLS, frames("a", 0, 10)))
    with open_store(postgres_url) as late, pytest.raises(StoreClaimedError, match="mdtool on 127"):
        late.claim()


def test_a_market_that_another_process_claimed_is_not_written(store, other, postgres_url):
    store.claim()
    disconnect_all(other)
    with open_store(postgres_url) as late:
        late.claim()
    with pytest.raises(StoreClaimedError, match="claimed the store meanwhile"):
        store.write(step(SYMBOLS, frames("a", 0, 10)))
    assert store.symbols() == []


def test_a_schema_is_a_store_of_its_own(postgres_url):
    with open_store(postgres_url) as one, open_store(f'{postgres_url}?schema=My "own"') as two:
        one.claim()
        two.claim()
        one.write(step(SYMBOLS, frames("a", 0, 10)))
        assert two.symbols() == []
        assert two.address == f'{one.address} schema My "own"'


def test_a_newer_schema_is_rejected(store, other, postgres_url):
    other.execute("UPDATE format SET version = 2")
    for opened in (open_store(postgres_url), open_history(postgres_url)):
        with (
            pytest.raises(StoreFormatError, match="of version 2, and this mdtool knows 1") as error,
            opened,
        ):
            opened.symbols()
        assert error.value.exit_code == EXIT_STARTUP


def test_other_tables_are_not_a_store(store, other):
    other.execute("ALTER TABLE trades RENAME TO orders")
    with pytest.raises(StoreFormatError, match="not the tables of a store"):
        store.write(step(SYMBOLS, frames("a", 0, 10)))


def test_a_read_only_database_is_unavailable_until_it_is_not(store, other, postgres_url):
    name = other.info.dbname
    store.write(step(SYMBOLS, frames("a", 0, 10)))
    other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    disconnect_all(other)
    with pytest.raises(StoreUnavailableError, match="is read-only"):
        store.write(step(SYMBOLS, frames("a", 10, 10)))
    with pytest.raises(StoreUnavailableError, match="is read-only"), open_store(postgres_url):
        pass
    with open_history(postgres_url) as reader:
        assert reader.symbols() == totals(10)
    other.execute("SET default_transaction_read_only = off")
    other.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    store.write(step(SYMBOLS, frames("a", 10, 10)))
    assert store.symbols() == totals(20)


def test_a_hot_standby_is_read_and_not_written(mortal_server):
    url = mortal_server.new_url()
    with open_store(url) as store, open_history(url) as reader:
        store.claim()
        store.write(step(SYMBOLS, frames("a", 0, 10)))
        mortal_server.become_standby(True)
        try:
            assert reader.symbols() == totals(10)
            with pytest.raises(StoreUnavailableError, match="is read-only"):
                store.write(step(SYMBOLS, frames("a", 10, 10)))
        finally:
            mortal_server.become_standby(False)
        store.write(step(SYMBOLS, frames("a", 10, 10)))
        assert reader.symbols() == totals(20)


def test_a_user_who_may_only_read_can_read(store, other, postgres, postgres_url):
    store.write(step(SYMBOLS, frames("a", 0, 10)))
    role = f"reader_{other.info.dbname}"
    other.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'reader'")
    other.execute(f"GRANT USAGE ON SCHEMA mdtool TO {role}")
    other.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA mdtool TO {role}")
    url = f"postgresql://{role}:reader@127.0.0.1:{postgres.port}/{other.info.dbname}"
    with open_history(url) as reader:
        assert reader.symbols() == totals(10)
    with open_store(url) as reader, pytest.raises(StoreRefusedError, match="permission denied"):
        reader.write(step(SYMBOLS, frames("a", 10, 10)))


def test_a_wrong_password_a_user_or_a_database_that_is_not_there_are_final(postgres, postgres_url):
    database = postgres_url.rpartition("/")[2]
    base = f"127.0.0.1:{postgres.port}"
    for url, reason in (
        (f"postgresql://mdtool:s3cret@{base}/{database}", "password authentication failed"),
        (f"postgresql://nobody:s3cret@{base}/{database}", "password authentication failed"),
        (f"postgresql://mdtool@{base}/{database}", "no password supplied"),
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
    ):
        for opened in (open_store(url), open_history(url)):
            with pytest.raises(StoreRefusedError, match=reason) as raised, opened:
                opened.symbols()
            assert "s3cret" not in str(raised.value)
            assert PASSWORD not in str(raised.value)
            assert raised.value.exit_code == EXIT_STARTUP


def test_a_reader_is_interrupted_while_it_waits(store, other, postgres_url):
    with other.transaction():
        other.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        with open_history(postgres_url) as reader:
            interrupt_while_waiting(reader, other)
        interrupt_while_waiting(store, other)
    assert not store._server._is_interrupted
    assert len(store.page("AAPL", 10)) == 0


def interrupt_while_waiting(reader, other):
    raised = []

    def read():
        with pytest.raises(StoreInterruptedError) as error:
            reader.page("AAPL", 10)
        raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: other.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall())
    reader.interrupt()
    thread.join()
    assert raised
    assert reader.symbols() == []


def test_a_lock_that_is_not_granted_times_out(store, other, monkeypatch):
    store.write(step(SYMBOLS, frames("a", 0, 10)))
    monkeypatch.setitem(connection._SESSION, "lock_timeout", "100ms")
    disconnect_all(other)
    with other.transaction():
        other.execute("SELECT FROM streams FOR UPDATE")
        with pytest.raises(StoreUnavailableError, match="lock timeout"):
            store.write(step(SYMBOLS, frames("a", 10, 10)))
    store.write(step(SYMBOLS, frames("a", 10, 10)))
    assert store.symbols() == totals(20)


def test_a_silent_server_times_out(mortal_server, monkeypatch):
    url = mortal_server.new_url()
    with contextlib.ExitStack() as stack:
        impatient = open_store(f"{url}?connect_timeout=2")
        store = until_taken(lambda: stack.enter_context(impatient))
        until_taken(lambda: store.write(step(SYMBOLS, frames("a", 0, 10))))
        monkeypatch.setattr(connection.Session, "answer_s", 0.2)
        mortal_server.pause()
        try:
            with pytest.raises(StoreUnavailableError, match=r"no answer for 0\.2 s"):
                store.write(step(SYMBOLS, frames("a", 10, 10)))
            with pytest.raises(StoreUnavailableError, match="timeout"):
                store.write(step(SYMBOLS, frames("a", 10, 10)))
        finally:
            mortal_server.resume()
        monkeypatch.undo()
        until_taken(lambda: store.write(step(SYMBOLS, frames("a", 10, 10))))
        assert store.symbols() == totals(20)


def test_pages_are_read_in_the_order_of_the_key_however_many_trades_there_are(store):
    store.write(step(SYMBOLS, frames("a", 0, 50_000)))
    at_ns = NOON_NS + 40_000 * MS
    before = ("EXPLAIN " + _STATEMENTS.page_before, ("AAPL", at_ns, 5, 5, 100))
    after = ("EXPLAIN " + _STATEMENTS.page_after, ("AAPL", at_ns, 5, 5, at_ns + 1, 100))
    for explain, scan in ((before, "Index Scan Backward"), (after, "Index Scan")):
        lines = store._server.run(lambda each, explain=explain: each.execute(*explain).fetchall())
        plan = "\n".join(line for (line,) in lines)
        assert f"{scan} using trades_pkey" in plan
        assert "Sort" not in plan


def test_a_full_disk_is_unavailable_and_stores_nothing(mortal_server, small_disk):
    with mortal_server.connect("postgres") as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        try:
            connection.execute("CREATE DATABASE small TEMPLATE template0 TABLESPACE small")
            fill(mortal_server.url("small"))
        finally:
            connection.execute("DROP DATABASE IF EXISTS small WITH (FORCE)")
            connection.execute("DROP TABLESPACE small")


def fill(url):
    """Write until the disk is full, make room, and go on."""
    with open_store(url) as store:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 4000)"
            )
            with pytest.raises(StoreUnavailableError, match="No space left on device"):
                write_all(store)
            other.execute("DROP TABLE ballast")
            written = store.position("a")
        assert store.symbols() == totals(written)
        store.write(step(SYMBOLS, frames("a", written, 1_000)))
        assert store.symbols() == totals(written + 1_000)
        assert store.recount() == []


def write_all(store):
    for first in range(0, 1_000_000, 5_000):
        store.write(step(SYMBOLS, frames("a", first, 5_000)))


@pytest.fixture
def small_disk(mortal_server):
    """A folder of the server's on a disk of 32 MB."""
    folder = mortal_server.log.parent / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m,mode=777", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        inner = folder / "space"
        inner.mkdir()
        mortal_server.own(inner)
        yield inner
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("option", "said"),
    [("ssl_mode=require", "no option 'ssl_mode'; did you mean 'sslmode'?"), ("zzz=1", "'zzz'")],
)
def test_an_unknown_option_is_named_with_the_nearest(option, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_store(f"postgresql://user:s3cret@host/market?{option}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3?cret@host/market",
        "postgresql://user:s3cret@[::1/market",
        "postgresql://user:s3cret@host/market?no_such_option=1",
        "postgresql://user:s3%zzcret@host/market",
        "postgresql://user:s3@cret@host/market",
        "postgresql://user:s3cret@host/market?schema=",
        "postgresql://user:s3cret@host/market?sslmode=encrypted",
        "postgresql://user:s3cret@host/market?gssencmode=never",
        "postgresql://user:s3cret@host/market?channel_binding=x",
        "postgresql://user:s3cret@host/market?target_session_attrs=fast",
        "postgresql://user:s3cret@host/market?ssl_min_protocol_version=TLSv9",
        "postgresql://user:s3cret@host/market?connect_timeout=soon",
        "postgresql://user:s3cret@host/market?keepalives_idle=1s",
        "postgresql://user:s3cret@host/market?port=99999",
    ],
)
def test_an_invalid_url_is_rejected_without_its_secrets(url):
    for opener in (open_store, open_history):
        with pytest.raises(ConfigError, match="the URL of the store") as raised:
            opener(url)
        assert "cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://user:secret@db.example:6543/market", "postgresql db.example:6543/market"),
        ("postgresql://db.example/market?sslmode=require", "postgresql db.example:5432/market"),
        ("postgresql://[::1]/market", "postgresql [::1]:5432/market"),
        ("postgresql://a:1,b:2/market", "postgresql a:1,b:2/market"),
        ("postgresql:///market?host=/run/postgresql", "postgresql /run/postgresql/market"),
        ("postgresql://db/market?schema=paper", "postgresql db:5432/market schema paper"),
        ("postgresql://db/m?gssencmode=require&connect_timeout=9", "postgresql db:5432/m"),
        ("postgresql://db/m?sslmode=verify-full&sslrootcert=/ca.pem", "postgresql db:5432/m"),
    ],
)
def test_an_address_is_parsed(url, address):
    assert open_history(url).address == address


def test_a_value_that_postgresql_cannot_store_is_an_error(store):
    with pytest.raises(StoreError) as raised:
        store.write(step(SYMBOLS, frames("nul\0", 0, 10)))
    assert not isinstance(raised.value, StoreUnavailableError)
    with pytest.raises(StoreError) as raised:
        store.write(step(["\ud800", "MSFT"], frames("a", 0, 10)))
    assert not isinstance(raised.value, StoreUnavailableError)
    store.write(step(SYMBOLS, frames("a", 0, 10)))
    assert store.symbols() == totals(10)


class Rejecting(threading.Thread):
    """A server that rejects each connection with a code, and a text in some other language."""

    def __init__(self, code: str) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        fields = {"S": "FATALE", "V": "FATAL", "C": code, "M": "so nicht", "F": "a.c", "L": "1"}
        body = "".join(f"{key}{text}\0" for key, text in fields.items()).encode() + b"\0"
        self._message = b"E" + struct.pack("!i", len(body) + 4) + body

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, client.makefile("rb") as file, contextlib.suppress(OSError):
                    while (start := file.read(8))[4:] in {SSL_REQUEST, GSS_REQUEST}:
                        client.sendall(b"N")
                    file.read(int.from_bytes(start[:4]) - 8)  # unread bytes would reset it
                    client.sendall(self._message)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


SSL_REQUEST = struct.pack("!i", 80877103)
GSS_REQUEST = struct.pack("!i", 80877104)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("28P01", StoreRefusedError),
        ("28000", StoreRefusedError),
        ("3D000", StoreRefusedError),
        ("42501", StoreRefusedError),
        ("57P03", StoreUnavailableError),
        ("53300", StoreUnavailableError),
        ("08P01", StoreUnavailableError),
        ("42704", ConfigError),
        ("22023", ConfigError),
    ],
)
def test_a_rejected_connection_is_told_apart_by_its_code(code, kind):
    server = Rejecting(code)
    server.start()
    with contextlib.closing(server):
        store = open_store(f"postgresql://user:s3cret@127.0.0.1:{server.port}/market")
        with pytest.raises(kind, match="so nicht") as raised, store:
            pass
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert "a.c" not in str(raised.value)


@pytest.mark.parametrize(
    ("round_robin", "size"), [(False, 10), (True, 10), (False, 1)], ids=["", "in-turns", "of-one"]
)
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pool_that_shares_connections_is_rejected_and_left_clean(
    postgres, postgres_url, other, mode, round_robin, size
):
    with pgbouncer(postgres, postgres_url, mode, round_robin=round_robin, size=size) as url:
        for opened in (open_store(url), open_history(url)):
            with pytest.raises(StoreRefusedError, match="pool_mode = session") as raised, opened:
                opened.symbols()
            assert "\n" not in str(raised.value)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as client:
            for name in ("statement_timeout", "lock_timeout", "enable_sort", "search_path"):
                through = client.execute(f"SHOW {name}").fetchone()
                other.execute("RESET ALL")
                assert through == other.execute(f"SHOW {name}").fetchone()
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        in_database = f"{locks} AND database = (SELECT oid FROM pg_database WHERE datname = "
        assert other.execute(f"{in_database}current_database())").fetchone() == (0,)


def test_a_pool_of_sessions_is_a_server(postgres, postgres_url):
    with pgbouncer(postgres, postgres_url, "session") as url, open_store(url) as store:
        claim_when_free(store)
        store.write(step(["AAPL"]))
        with pytest.raises(StoreClaimedError), open_store(postgres_url) as second:
            second.claim()
