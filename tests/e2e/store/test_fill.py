"""`mdtool store INPUT` as its users run it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess

import numpy as np
import pytest
import zstandard

from mdtool.adapters.stores import open_history, open_store
from mdtool.core.units import UNDEF_PRICE
from tests.support.commands import MDTOOL, completed, output_of
from tests.support.processes import ChildProcess
from tests.support.store_commands import (
    DAY_NS,
    NOON_NS,
    SYMBOLS,
    dbn,
    environment,
    expected,
    held,
    put,
    state,
    store,
    trades,
    url,
    without_streams,
    write,
)


def test_a_file_is_stored_with_sessions_and_bars(tmp_path):
    records = trades(3_000)
    file, where = write(tmp_path / "day.dbn", records), url(tmp_path)
    output = store(file, "--store", where)
    assert output == f"{file}: 3,000 trades new, 0 known already, 0 left out\n"
    assert without_streams(held(where)) == expected(records)
    saved = state(where)
    for symbol, session in zip(saved.symbols, saved.sessions, strict=True):
        mine = records[records["instrument_id"] == SYMBOLS.index(symbol) + 1]
        price, size = mine["price"].tolist(), mine["size"].tolist()
        assert session["count"] == len(mine)
        assert session["volume"] == sum(size)
        assert (session["open"], session["close"]) == (price[0], price[-1])
        assert (session["high"], session["low"]) == (max(price), min(price))
        assert sum(_bars(where, saved, symbol)["count"]) == len(mine)


def _bars(where, saved, symbol):
    second = 10**9
    with open_history(where) as history:
        closed = history.bars(symbol, second, 10_000)
    bars = saved.bars[(saved.bars["interval_ns"] == second) & (saved.bars["is_open"] == 1)]
    return np.concatenate([closed, bars[bars["symbol"] == saved.symbols.index(symbol)]])


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_place_with_a_trade_of_another_symbol_is_not_stored_again(tmp_path, is_reversed):
    longer = trades(40, SYMBOLS[:1])
    longer["instrument_id"][-2] = 2
    shorter = np.delete(longer, -2)
    files = [write(tmp_path / "longer.dbn", longer), write(tmp_path / "shorter.dbn", shorter)]
    first, second = files[::-1] if is_reversed else files
    where = url(tmp_path)
    store(first, "--store", where)
    before = held(where)
    store(second, "--store", where, status=1, said="at 38 it has")
    assert held(where) == before


def test_the_same_again_changes_nothing_however_it_comes(tmp_path):
    records = trades(2_000)
    file, where = write(tmp_path / "day.dbn", records), url(tmp_path)
    store(file, "--store", where)
    before, saved = held(where), state(where)
    packed = tmp_path / "packed.dbn.zst"
    packed.write_bytes(zstandard.compress(dbn(records)))
    for again in (file, packed, "-"):
        stdin = dbn(records) if again == "-" else b""
        output = store(again, "--store", where, stdin=stdin)
        assert "0 trades new, 2,000 known already, 0 left out" in output
    assert held(where) == before
    np.testing.assert_array_equal(state(where).sessions, saved.sessions)
    np.testing.assert_array_equal(state(where).bars, saved.bars)


def test_parts_in_any_order_come_to_the_whole(tmp_path):
    records = trades(1_500)
    file, where, other = write(tmp_path / "day.dbn", records), url(tmp_path), url(tmp_path, "o")
    middle = int(records["ts_recv"][700])
    store(file, "--store", where, "--start", middle)
    store(file, "--store", where, "--symbols", "ESZ5,BRK/B")
    store(file, "--store", where, "--end", middle + 10**9)
    store(file, "--store", other)
    assert held(where) == held(other)
    with open_history(where) as some, open_history(other) as all_at_once:
        assert some.symbols() == all_at_once.symbols()


def test_several_files_merge_and_each_is_known_again_by_itself(tmp_path):
    first, second = trades(900), trades(700, begin_ns=NOON_NS + 10**9, seed=2)
    one, two = write(tmp_path / "1.dbn", first), write(tmp_path / "2.dbn", second)
    where = url(tmp_path)
    assert "1,600 trades new" in store(one, two, "--store", where)
    assert without_streams(held(where)) == sorted(expected(first) + expected(second))
    assert "0 trades new, 700 known already" in store(two, "--store", where)
    assert "0 trades new, 900 known already" in store(one, "--store", where)


def test_a_file_that_has_grown_adds_what_is_new(tmp_path):
    records, where = trades(1_000), url(tmp_path)
    store(write(tmp_path / "day.dbn", records[:400]), "--store", where)
    output = store(write(tmp_path / "day.dbn", records), "--store", where)
    assert "600 trades new, 400 known already" in output
    assert without_streams(held(where)) == expected(records)


def test_a_name_stands_for_one_stream_only(tmp_path):
    where = url(tmp_path)
    one = write(tmp_path / "1.dbn", trades(300))
    store(one, "--store", where, "--stream-id", "day")
    assert {row[2].partition("#")[0] for row in held(where)} == {"day"}
    before = held(where)
    other = write(tmp_path / "2.dbn", trades(300, seed=2))
    refused = "begins with other trades than the stored stream 'day'"
    store(other, "--store", where, "--stream-id", "day", status=1, said=refused)
    assert held(where) == before
    assert "300 known already" in store(one, "--store", where, "--stream-id", "day")


def test_a_stream_that_continues_differently_is_rejected(tmp_path):
    where, records = url(tmp_path), trades(300)
    store(write(tmp_path / "1.dbn", records), "--store", where)
    before = held(where)
    for name, change in (("price", 1), ("size", 1), ("instrument_id", 1)):
        changed = records.copy()
        row = 200
        changed[name][row] = (
            changed[name][row] + change
            if name != "instrument_id"
            else (changed[name][row] % len(SYMBOLS) + 1)
        )
        if name == "size":
            changed[name][row] = 1 if records[name][row] != 1 else 2
        file = write(tmp_path / f"{name}.dbn", changed)
        store(file, "--store", where, status=1, said="is not the one that was stored: at 200 ")
    assert held(where) == before


def test_invalid_trades_are_rejected_and_counted_by_reason(tmp_path):
    records, where = trades(100), url(tmp_path)
    records["price"][20] = -5
    records["price"][21] = UNDEF_PRICE
    records["size"][22] = 0
    records["ts_event"][23] = 5
    output = store(write(tmp_path / "day.dbn", records), "--store", where)
    assert "97 trades new, 0 known already, 3 left out (price 1, volume 1, timestamp 1)" in output
    assert len(held(where)) == 97


def test_symbols_are_written_as_ingest_servers_write_them(tmp_path):
    symbols = ["esz5", "A\x01B"]
    records, where = trades(50, symbols), url(tmp_path)
    output = store(write(tmp_path / "day.dbn", records, symbols), "--store", where)
    others = int(np.count_nonzero(records["instrument_id"] == 2))
    assert f"{others} left out (symbol {others})" in output
    assert {row[0] for row in held(where)} == {"ESZ5"}


def test_older_trades_are_stored_though_their_bars_have_closed(tmp_path):
    where = url(tmp_path)
    store(write(tmp_path / "2.dbn", trades(90)), "--store", where)
    older = trades(60, begin_ns=NOON_NS - DAY_NS, seed=2)
    output = store(write(tmp_path / "1.dbn", older), "--store", where)
    assert "60 trades new, 0 known already, 0 left out; 60 of the new ones too old" in output
    assert len(held(where)) == 150
    assert "150 trades, differences: 0" in store("check", "--store", where)


def test_the_store_is_the_users_own_unless_another_is_named(tmp_path):
    file = write(tmp_path / "day.dbn", trades(30))
    completed("store", file, env=environment(XDG_DATA_HOME=str(tmp_path)))
    assert len(held(f"sqlite:///{tmp_path}/mdtool/mdtool.db")) == 30


def test_the_store_is_that_of_serve_all_in_the_settings(tmp_path):
    file = write(tmp_path / "day.dbn", trades(30))
    for name, value in (
        ("MDTOOL_SERVE_DATA_DIR", str(tmp_path / "data")),
        ("MDTOOL_AGGREGATE_STORE", f"sqlite:///{tmp_path}/own.db"),
        ("MDTOOL_STORE_STORE", f"sqlite:///{tmp_path}/this.db"),
    ):
        completed("store", file, env=environment(**{name: value}))
    for place in ("data/mdtool.db", "own.db", "this.db"):
        assert len(held(f"sqlite:///{tmp_path}/{place}")) == 30
    ended = completed("store", file, env=environment(MDTOOL_SERVE_MEMORY="1"))
    assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1)
    assert b"name a store with --store" in ended.stderr


def test_one_trade_is_in_the_singular(tmp_path):
    file, where = write(tmp_path / "one.dbn", trades(1)), url(tmp_path)
    assert "one.dbn: 1 trade new, 0 known already" in store(file, "--store", where)
    assert "s.db: 1 trade, differences: 0" in store("check", "--store", where)


def test_a_stream_that_is_cut_is_stored_up_to_there(tmp_path):
    records, where = trades(500), url(tmp_path)
    file = tmp_path / "cut.dbn"
    file.write_bytes(dbn(records)[:-20])
    output = store(file, "--store", where, status=1, said="ends inside a record")
    assert "499 trades new" in output
    assert without_streams(held(where)) == expected(records[:499])


def test_a_stream_that_is_cut_early_is_stored_and_resumed(tmp_path):
    records, where = trades(500), url(tmp_path)
    file = tmp_path / "cut.dbn"
    file.write_bytes(dbn(records[:10])[:-20])
    for said in ("9 trades new, 0 known", "0 trades new, 9 known"):
        output = store(file, "--store", where, status=1, said="ends inside a record")
        assert said in output
    whole = write(tmp_path / "day.dbn", records)
    assert "491 trades new, 9 known already" in store(whole, "--store", where)
    assert "0 trades new, 500 known already" in store(whole, "--store", where)
    assert without_streams(held(where)) == expected(records)


def test_ctrl_c_keeps_written_steps_and_a_second_run_resumes(tmp_path):
    records, where = trades(2_000), url(tmp_path)
    stream = dbn(records)
    begin = len(stream) - 2_000 * records.itemsize
    command = [*MDTOOL, "store", "-", "--store", where]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with ChildProcess(command, **pipes) as process:
        process.stdin.write(stream[: begin + 800 * records.itemsize])
        process.stdin.flush()
        _wait_for(where, 800)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130
    assert b"stdin: 800 trades new" in output
    assert errors == b""
    assert "1,200 trades new, 800 known already" in store("-", "--store", where, stdin=stream)
    assert without_streams(held(where)) == expected(records)


def _wait_for(where, count):
    """Wait until a store has so many trades, for as long as the test may take."""
    while True:
        try:
            if len(held(where)) >= count:
                return
        except Exception:  # noqa: BLE001 - the store is being made
            pass


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"symbol,price\nESZ5,1.0\n", "is not a DBN stream"),
    ],
)
def test_input_that_is_not_dbn_is_one_line(tmp_path, content, said):
    file = tmp_path / "day.dbn"
    file.write_bytes(content)
    store(file, "--store", url(tmp_path), status=1, said=said)


def test_input_without_trades_is_one_line(tmp_path):
    file = tmp_path / "bars.dbn"
    file.write_bytes(output_of("aggregate", "-", "--interval", "1s", "-D", stdin=dbn(trades(50))))
    store(file, "--store", url(tmp_path), status=1, said="which has no trades")
    store(tmp_path / "none.dbn", "--store", url(tmp_path), status=1, said="no such file")


def test_invalid_stores_are_one_line(tmp_path):
    file = write(tmp_path / "day.dbn", trades(20))
    store(file, "--store", "redis://localhost", status=2, said="no such store")
    store(file, "--store", "sqlite:///", status=2, said="names no SQLite file")
    store(file, "--store", f"sqlite:///{tmp_path}/no/s.db", status=1, said="there is no folder")
    no_store = tmp_path / "text.db"
    no_store.write_text("not a database, but long enough to have a header of one\n" * 9)
    store(file, "--store", f"sqlite:///{no_store}", status=3, said="text.db")


def test_a_store_of_a_newer_schema_is_rejected(tmp_path):
    file, where = write(tmp_path / "day.dbn", trades(20)), url(tmp_path)
    store(file, "--store", where)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()
    for command in ([file], ["check"], ["export", tmp_path / "o.csv"], ["import", file]):
        store(*command, "--store", where, status=3, said="newer")


def test_a_store_in_use_is_rejected(tmp_path):
    file, where = write(tmp_path / "day.dbn", trades(20)), url(tmp_path)
    put(where, ["ESZ5"], [(0, 1, 1, NOON_NS)])
    with open_store(where) as held_by_us:
        held_by_us.claim()
        for command in ([file], ["import", file]):
            store(*command, "--store", where, status=3, said=str(tmp_path / "s.db"))
    assert len(held(where)) == 1


def test_wrong_usage_is_one_line(tmp_path):
    file = write(tmp_path / "day.dbn", trades(20))
    store("-", "-", "--store", url(tmp_path), status=2, said="give '-' once")
    store(file, file, "--stream-id", "x", "--store", url(tmp_path), status=2, said="one INPUT")
    store(file, "--stream-id", "a#b", "--store", url(tmp_path), status=2, said="without '#'")
    store("-q", status=2, said="needs INPUT")


def test_its_help_shows_each_command_with_an_example():
    ended = completed("store", "--help", env={**os.environ, "COLUMNS": "100"})
    for command in ("store sample_data", "store export", "store import", "store check"):
        assert f"Example: mdtool {command}" in ended.stdout.decode()


def test_the_trades_of_real_orders_are_stored(real_data, tmp_path):
    file, where = real_data / "CLX5_mbo.dbn", url(tmp_path)
    listed = output_of("replay-dbn", file, "--schema", "trades", "-C", "-s").decode().splitlines()
    names = listed[0].split(",")
    wanted = [dict(zip(names, line.split(","), strict=True)) for line in listed[1:]]
    assert f"{len(wanted):,} trades new" in store(file, "--store", where)
    assert sorted((row[1], row[4], row[5], row[0]) for row in held(where)) == sorted(
        (int(r["ts_event"]), int(r["price"]), int(r["size"]), r["symbol"]) for r in wanted
    )
