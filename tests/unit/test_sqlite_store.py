"""Files that are not SQLite stores, are damaged, or are moved while they are written."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import (
    StoreClaimedError,
    StoreError,
    StoreFormatError,
    StoreGapError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.port import Step, SymbolTotals, TradeKey, WrongTotals
from mdtool.adapters.stores.sqlite import History, Store
from tests.support.processes import ChildProcess
from tests.support.stores import MS, NOON_NS, run, step

SYMBOLS = ["AAPL", "MSFT"]
PAGE_BYTES = 4096


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "trades.db"


@pytest.fixture
def url(path) -> str:
    return f"sqlite:///{path}?synchronous=normal"


@pytest.fixture
def store(url):
    with open_store(url) as store:
        yield store


def trades(first: int, count: int) -> Step:
    """A step of a stream whose frames are all trades."""
    rows = [(n % 2, n + 1, 1, NOON_NS + n * MS) for n in range(first, first + count)]
    return step(SYMBOLS, run("stream", first, rows))


def message(raised) -> str:
    """The text of what was raised, which must be one line that names the store."""
    text = str(raised.value)
    assert text.startswith("sqlite /")
    assert "\n" not in text
    return text


def execute(path: Path, *statements: str) -> list[tuple]:
    """Have another program execute statements in a file; return what the last one gives."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def damage(path: Path, at: int, count: int = PAGE_BYTES) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * count)


class Meanwhile(list):
    """Runs of a step; while they are written, something happens."""

    def __init__(self, runs, happens) -> None:
        super().__init__(runs)
        self._happens = happens

    def __iter__(self):
        happens, self._happens = self._happens, lambda: None
        happens()
        return super().__iter__()


def while_written(each: Step, happens) -> Step:
    return Step(each.symbols, Meanwhile(each.runs, happens))


def test_a_store_is_created_in_a_missing_or_empty_file(path, url):
    path.touch()
    with open_history(url) as history, pytest.raises(StoreUnavailableError) as raised:
        history.symbols()
    assert "nothing is in it yet" in message(raised)
    with open_store(url) as store:
        store.write(trades(0, 1))
    assert path.read_bytes().startswith(b"SQLite format 3\0")
    assert execute(path, "PRAGMA application_id") == [(0x6D647431,)]


def test_a_store_that_was_half_created_is_created(path, url):
    execute(path, "PRAGMA journal_mode = WAL")
    with open_store(url) as store:
        assert store.symbols() == []


def test_a_path_may_have_any_characters(tmp_path):
    url = f"sqlite:///{tmp_path}/a b%20#ü;.db"
    with open_store(url) as store, open_history(url) as history:
        store.claim()
        store.write(trades(0, 2))
        assert history.has("AAPL")
    assert (tmp_path / "a b%20#ü;.db").is_file()


@pytest.mark.parametrize("kind", [open_store, open_history])
@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["PRAGMA user_version = 3"], "is of schema 3, and this mdtool knows 2"),
        (["PRAGMA user_version = 0"], "is of schema 0"),
        (["PRAGMA application_id = 0"], "of another application"),
        (["PRAGMA application_id = 1196444487"], "of another application"),
        (["DROP TABLE store"], "has other tables than it should"),
        (["DELETE FROM store"], "has lost its own id"),
    ],
)
def test_other_schemas_and_applications_are_rejected(path, url, kind, statements, said):
    with open_store(url) as store:
        store.write(trades(0, 1))
    execute(path, *statements)
    before = path.read_bytes()
    with pytest.raises(StoreFormatError) as raised, kind(url) as opened:
        opened.symbols()
    assert said in message(raised)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [open_store, open_history])
def test_a_file_of_another_application_is_not_changed(path, url, kind):
    execute(path, "CREATE TABLE mine (a)")
    before = path.read_bytes()
    with pytest.raises(StoreFormatError) as raised, kind(url) as opened:
        opened.symbols()
    assert "of another application" in message(raised)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", [open_store, open_history])
@pytest.mark.parametrize("content", [b"garbage" * 1_000, b"\0" * 8_192, b"{}\n"])
def test_a_file_that_is_not_a_database_is_rejected(path, url, kind, content):
    path.write_bytes(content)
    with pytest.raises(StoreFormatError) as raised, kind(url) as opened:
        opened.symbols()
    assert "is not a SQLite file" in message(raised)
    assert path.read_bytes() == content


def test_a_header_that_was_overwritten_is_noticed(path, url):
    with open_store(url) as store:
        store.write(trades(0, 1_000))
    damage(path, 0, 100)
    with pytest.raises(StoreFormatError) as raised, open_store(url):
        pass
    assert "is not a SQLite file" in message(raised)


def test_overwritten_pages_are_noticed_when_read(path, url):
    with open_store(url) as store:
        store.write(trades(0, 20_000))
        wanted = [row for page in store.trades("MSFT") for row in page.trades.price.tolist()]
    pages = path.stat().st_size // PAGE_BYTES
    for page in range(pages // 2, pages // 2 + 20):
        damage(path, page * PAGE_BYTES)
    with open_store(url) as store:
        for read in (store.recount, store.repair, lambda: read_all(store, wanted)):
            with pytest.raises(StoreFormatError) as raised:
                read()
            assert "is damaged; restore it from a copy" in message(raised)


def test_values_that_are_not_numbers_are_noticed_when_read(path, url):
    with open_store(url) as store:
        store.write(trades(0, 100))
    with contextlib.closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE trade_rows SET price = 'much' WHERE sequence = 51")
    with open_history(url) as history:
        with pytest.raises(StoreFormatError) as raised:
            list(history.trades("MSFT"))
        assert "is damaged; restore it from a copy" in message(raised)
        assert len(history.page("AAPL", 100)) == 50


def read_all(store: Store, wanted: list[int]) -> None:
    for symbol in SYMBOLS:
        found = [row for page in store.trades(symbol) for row in page.trades.price.tolist()]
        assert symbol != "MSFT" or found == wanted  # a page that was not met


def test_a_folder_is_rejected(tmp_path):
    for kind in (open_store, open_history):
        with pytest.raises(StoreFormatError) as raised, kind(f"sqlite:///{tmp_path}") as opened:
            opened.symbols()
        assert "is a folder; name a file" in message(raised)


def test_a_missing_folder_is_not_created(tmp_path):
    path = tmp_path / "gone" / "trades.db"
    for kind in (open_store, open_history):
        with pytest.raises(StoreUnavailableError) as raised, kind(f"sqlite:///{path}") as opened:
            opened.symbols()
        assert f"there is no folder {path.parent}" in message(raised)
    path.parent.mkdir()
    with open_store(f"sqlite:///{path}"):
        pass


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that holds a file by a statement, until it is told to let go."""

    def __init__(self, path: Path, statement: str) -> None:
        self._process = ChildProcess(
            [sys.executable, "-c", HOLD, str(path), statement],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self._process.stdout.readline() == "held\n"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()


def test_a_locked_store_is_waited_for_until_the_timeout(path, url):
    with Store(url, busy_s=0.05) as store:
        store.write(trades(0, 5))
        with Holder(path, "BEGIN IMMEDIATE"):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError) as raised:
                    store.write(trades(5, 5))
                assert "is locked by another process" in message(raised)
            with pytest.raises(StoreUnavailableError), Store(url, busy_s=0.05):
                pass
            assert store.symbols()[0].trade_count == 3
        store.write(trades(5, 5))
        assert store.symbols()[0].trade_count == 5


def test_a_lock_that_is_released_in_time_is_waited_for(path, url):
    with Store(url, busy_s=60) as store:
        with Holder(path, "BEGIN IMMEDIATE") as holder:
            store.write(while_waiting(trades(0, 5), holder))
        assert store.position("stream") == 5


def while_waiting(each: Step, holder: Holder) -> Step:
    holder.__exit__()
    return each


def test_a_file_that_was_moved_is_written_once_it_is_back(path, url, store, tmp_path):
    store.write(trades(0, 5))
    path.rename(tmp_path / "away.db")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as raised:
            store.write(trades(5, 5))
        assert "there is no such file" in message(raised)
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    store.write(trades(5, 5))
    check_trades(url, 10)


def test_a_file_that_is_moved_during_a_write_is_noticed(path, url, store, tmp_path):
    store.write(trades(0, 5))
    taking = while_written(trades(5, 5), lambda: path.rename(tmp_path / "away.db"))
    with pytest.raises(StoreUnavailableError) as raised:
        store.write(taking)
    assert "there is no such file" in message(raised)
    (tmp_path / "away.db").rename(path)
    check_trades(url, 5)
    store.write(trades(5, 5))
    check_trades(url, 10)


def test_a_folder_that_is_moved_during_a_write_is_noticed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    with open_store(f"sqlite:///{folder}/trades.db") as store:
        store.write(trades(0, 5))
        with pytest.raises(StoreUnavailableError) as raised:
            store.write(while_written(trades(5, 5), lambda: folder.rename(tmp_path / "away")))
        assert f"there is no folder {folder}" in message(raised)
        (tmp_path / "away").rename(folder)
        store.write(trades(5, 5))
        check_trades(f"sqlite:///{folder}/trades.db", 10)


def test_a_log_that_is_deleted_while_it_is_written_is_noticed(path, url, store):
    store.write(trades(0, 5))
    log = path.with_name(path.name + "-wal")
    with pytest.raises(StoreUnavailableError) as raised:
        store.write(while_written(trades(5, 5), log.unlink))
    assert "moved or replaced" in message(raised)
    store.write(trades(5, 5))
    check_trades(url, 10)


def test_all_names_of_a_file_are_one_store(path, tmp_path):
    link = tmp_path / "link.db"
    with open_store(f"sqlite:///{path}") as store:
        link.symlink_to(path)
        with open_store(f"sqlite:///{link}") as other:
            store.claim()
            with pytest.raises(StoreClaimedError, match=f"in use by process {os.getpid()}"):
                other.claim()
            other.write(trades(0, 5))
            store.write(trades(0, 10))
            log = path.with_name(path.name + "-wal")
            with pytest.raises(StoreUnavailableError):
                other.write(while_written(trades(10, 5), log.unlink))


def test_a_deleted_file_is_not_recreated_by_its_writer(path, store):
    store.write(trades(0, 5))
    path.unlink()
    with pytest.raises(StoreUnavailableError):
        store.write(trades(5, 5))
    assert not path.exists()


def test_another_store_in_its_place_is_not_written(path, url, store, tmp_path):
    store.write(trades(0, 5))
    with open_store(f"sqlite:///{tmp_path}/other.db") as other:
        other.write(trades(0, 5))
    (tmp_path / "other.db").replace(path)
    for _ in range(2):
        with pytest.raises(StoreError) as raised:
            store.write(trades(5, 5))
        assert "another store was put in its place" in message(raised)
        assert not isinstance(raised.value, StoreUnavailableError)


def test_an_older_copy_in_its_place_is_not_written(path, url, tmp_path):
    with open_store(url) as store:
        store.write(trades(0, 5))
    shutil.copy(path, tmp_path / "copy.db")
    with open_store(url) as store:
        store.write(trades(5, 5))
        (tmp_path / "copy.db").replace(path)
        with pytest.raises(StoreError) as raised:
            store.write(trades(10, 5))
        assert "an older copy was put in its place" in message(raised)


def test_a_reader_follows_a_replaced_file(path, url, tmp_path):
    with open_store(url) as store:
        store.write(trades(0, 4))
    with open_store(f"sqlite:///{tmp_path}/other.db") as other:
        other.write(step(["IBM"], run("a", 0, [(0, 1, 1, NOON_NS)])))
        other.write(step(["AAPL"], run("b", 0, [(0, 9, 1, NOON_NS)])))
    with History(url) as history:
        assert history.page("AAPL", 9).trades.price.tolist() == [3, 1]
        (tmp_path / "other.db").replace(path)
        assert history.page("AAPL", 9).trades.price.tolist() == [9]
        path.unlink()
        with pytest.raises(StoreUnavailableError):
            history.page("AAPL", 9)


def test_wrong_totals_are_found_and_corrected(path, url, store):
    store.write(trades(0, 10))
    execute(
        path,
        "UPDATE symbols SET trade_count = 7 WHERE symbol = 'AAPL'",
        "UPDATE symbols SET last_trade_at = 1 WHERE symbol = 'MSFT'",
        "INSERT INTO symbols (symbol, trade_count) VALUES ('IBM', 3)",
    )
    wrong = [
        WrongTotals(
            SymbolTotals("AAPL", 7, NOON_NS + 8 * MS), SymbolTotals("AAPL", 5, NOON_NS + 8 * MS)
        ),
        WrongTotals(SymbolTotals("IBM", 3, 0), SymbolTotals("IBM", 0, 0)),
        WrongTotals(SymbolTotals("MSFT", 5, 1), SymbolTotals("MSFT", 5, NOON_NS + 9 * MS)),
    ]
    with open_history(url) as history:
        assert history.recount() == wrong
        assert store.repair() == wrong
        assert store.repair() == history.recount() == []
    check_trades(url, 10)


def test_trades_of_no_symbol_are_damage(path, url, store):
    store.write(trades(0, 10))
    execute(path, "DELETE FROM symbols WHERE symbol = 'AAPL'")
    for check in (store.recount, store.repair):
        with pytest.raises(StoreFormatError) as raised:
            check()
        assert "trades of no symbol" in message(raised)


def test_numbers_beyond_int64_are_rejected(store):
    store.write(trades(0, 5))
    with pytest.raises(StoreError) as raised:
        store.write(step(SYMBOLS, run("stream", 5, [], frames=2**63)))
    message(raised)
    with pytest.raises(StoreError):
        store.write(step(SYMBOLS, run("stream", 5, []), counts={"\ud800": 1}))
    with pytest.raises(StoreError):
        store.has("\ud800")
    with pytest.raises(StoreError):
        store.page("AAPL", 1, TradeKey(2**63, 0, 0))
    with pytest.raises(StoreGapError):
        store.write(trades(6, 1))
    store.write(trades(5, 5))
    assert store.position("stream") == 10


def check_trades(url: str, count: int) -> None:
    """See that a store has the first so many trades of the stream, each once."""
    with open_history(url) as history:
        found = [page for symbol in SYMBOLS for page in history.trades(symbol)]
        assert sorted(price for page in found for price in page.trades.price.tolist()) == list(
            range(1, count + 1)
        )
        assert history.recount() == []
