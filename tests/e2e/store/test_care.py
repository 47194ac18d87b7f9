"""`mdtool store backup`, `restore` and `compact`."""

from __future__ import annotations

import sqlite3
import threading

import numpy as np
import pytest

from mdtool.adapters.stores import open_care, open_store
from tests.support.store_commands import (
    DAY_NS,
    NOON_NS,
    held,
    put,
    state,
    store,
    trades,
    url,
    write,
)
from tests.support.stores import STORES
from tests.support.supervised import FREE_PORTS, serve

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def filled(tmp_path):
    """A store with trades of a file."""
    store(write(tmp_path / "t.dbn", trades(5_000)), "--store", url(tmp_path))
    return url(tmp_path)


def put_one_by_one(where, first, count):
    """Write trades in a transaction each, as slow symbols have them."""
    for place in range(first, first + count):
        put(where, ["ESZ5"], [(0, 10**9 + place, 1, NOON_NS + place)], f"s{place}")


def test_a_copy_restores_what_was_there(filled, tmp_path):
    before, market = held(filled), state(filled)
    said = store("backup", tmp_path / "copy.db", "--store", filled)
    assert said.startswith(f"{tmp_path}/copy.db: ")
    assert held(url(tmp_path, "copy")) == before
    put(filled, ["LATER"], [(0, 10**9, 1, NOON_NS + DAY_NS)])
    assert held(filled) != before
    refused = store("restore", tmp_path / "copy.db", "--store", filled, status=1, said="has trades")
    assert refused == ""
    store("restore", tmp_path / "copy.db", "--store", filled, "-f")
    assert held(filled) == before
    assert repr(state(filled)) == repr(market)
    store("restore", tmp_path / "copy.db", "--store", url(tmp_path, "elsewhere"))
    assert held(url(tmp_path, "elsewhere")) == before
    assert ", differences: 0," in store("check", "--store", url(tmp_path, "elsewhere"))


def test_a_copy_is_of_one_moment_while_the_store_is_written(filled, tmp_path):
    """A writer writes on between any two steps of the copy, and is never locked out."""
    written = 0

    def write_one(_done, _of):
        nonlocal written
        put(filled, ["ESZ5"], [(0, 10**9, 1, NOON_NS + DAY_NS)], f"meanwhile {written}")
        written += 1

    before = held(filled)
    open_care(filled).back_up(tmp_path / "copy.db", write_one)
    assert written
    assert held(url(tmp_path, "copy")) == before
    assert len(held(filled)) == len(before) + written


def test_an_existing_copy_is_replaced_only_if_told(filled, tmp_path):
    (tmp_path / "copy.db").write_text("precious")
    store("backup", tmp_path / "copy.db", "--store", filled, status=1, said="exists already; -f")
    assert (tmp_path / "copy.db").read_text() == "precious"
    store("backup", tmp_path / "copy.db", "--store", filled, "-f")
    assert held(url(tmp_path, "copy")) == held(filled)
    store("backup", tmp_path, "--store", filled, status=1, said="is a folder; name a file in it")
    missing = tmp_path / "missing.db"
    store("backup", "c.db", "--store", f"sqlite:///{missing}", status=1, said="no such file")
    assert not missing.exists()


def test_a_store_in_use_is_not_replaced(filled, tmp_path):
    store("backup", tmp_path / "copy.db", "--store", filled)
    with open_store(filled) as used:
        used.claim()
        store(
            *("restore", tmp_path / "copy.db", "--store", filled, "-f"),
            status=3,
            said="is in use by process",
        )


@pytest.mark.parametrize("damage", ["cut", "other", "missing"])
def test_a_damaged_copy_is_not_restored(damage, filled, tmp_path):
    before, copy = held(filled), tmp_path / "copy.db"
    store("backup", copy, "--store", filled)
    if damage == "cut":
        with copy.open("r+b") as file:
            file.truncate(copy.stat().st_size // 2)
    elif damage == "other":
        copy.unlink()
        with sqlite3.connect(copy) as other:
            other.execute("CREATE TABLE t (a)")
        other.close()
    else:
        copy.unlink()
    store("restore", copy, "--store", filled, "-f", status=1, said=f"{copy}: ")
    assert held(filled) == before


def test_rows_become_blocks_and_the_file_shrinks(tmp_path):
    where, path = url(tmp_path), tmp_path / "s.db"
    put_one_by_one(where, 0, 300)
    before, size = held(where), path.stat().st_size
    with open_store(where) as used:
        used.claim()
        said = store("compact", "--store", where)
    assert "300 trades joined" in said
    assert "its file keeps what is free" in said
    assert held(where) == before
    assert "0 trades joined" in (said := store("compact", "--store", where))
    assert said.endswith(" given back\n")
    assert held(where) == before
    assert path.stat().st_size < size
    assert ", differences: 0," in store("check", "--store", where)


def test_writers_go_on_while_a_store_is_compacted(tmp_path):
    where = url(tmp_path)
    put_one_by_one(where, 0, 200)
    failed = []

    def write_on():
        try:
            put_one_by_one(where, 1_000, 200)
        except Exception as error:  # noqa: BLE001 - whatever it is, it fails the test
            failed.append(error)

    writer = threading.Thread(target=write_on)
    writer.start()
    joined = 0
    while writer.is_alive():
        joined += open_care(where).compact(lambda _done, _of: None).moved
    writer.join()
    joined += open_care(where).compact(lambda _done, _of: None).moved
    assert not failed
    assert joined >= 300
    assert len(held(where)) == 400
    assert ", differences: 0," in store("check", "--store", where)


def store_ten_days(folder, where):
    """Store 100 trades on each of ten days."""
    days = [trades(100, begin_ns=NOON_NS + day * DAY_NS) for day in range(10)]
    store(write(folder / "days.dbn", np.concatenate(days)), "--store", where)


@pytest.fixture
def of_ten_days(tmp_path):
    store_ten_days(tmp_path, url(tmp_path))
    return url(tmp_path)


@pytest.mark.parametrize("name", STORES)
def test_old_trades_are_pruned_and_the_rest_agrees(name, tmp_path):
    with STORES[name](tmp_path) as new_url:
        where = new_url()
        store_ten_days(tmp_path, where)
        said = store("prune", "--store", where, "--keep", "3d")
        assert "deleted 600 trades of before 2025-09-30T00:00:00" in said
        assert min(row[1] for row in held(where)) == NOON_NS + 6 * DAY_NS
        assert len(held(where)) == 400
        assert ", differences: 0," in store("check", "--store", where)
        assert "deleted nothing" in store("prune", "--store", where, "--keep", "3d")
        store("prune", "--store", where, status=2, said="give --keep, such as 90d,20GB")
        store("prune", "--store", where, "--keep", "1h", status=2, said="give 1d or more")
        sized = ("prune", "--store", where, "--keep", "3d,1TB")
        if name == "sqlite":
            assert "deleted nothing" in store(*sized)
        else:
            store(*sized, status=2, said="keeps trades by age; leave the size out of `keep`")


def test_a_service_prunes_the_store_that_it_has(of_ten_days, monkeypatch):
    monkeypatch.setenv("MDTOOL_STORE_KEEP", "3d")
    with serve("all", "-J", "--store", of_ten_days, *FREE_PORTS) as services:
        services.addresses(4)
        while len(held(of_ten_days)) > 400:
            pass
    assert len(held(of_ten_days)) == 400
    assert ", differences: 0," in store("check", "--store", of_ten_days)


@pytest.mark.parametrize("scheme", ["postgresql", "mongodb", "mongodb+srv"])
def test_a_database_with_tools_of_its_own_is_left_to_them(scheme, tmp_path):
    where = f"{scheme}://nobody@127.0.0.1:1/none"
    for command in (["backup", tmp_path / "c.db"], ["restore", tmp_path / "c.db"], ["compact"]):
        store(*command, "--store", where, status=2, said="use the database's own tools")
