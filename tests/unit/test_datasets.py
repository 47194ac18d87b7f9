"""Folders, staging and groups of datasets."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.adapters.datasets import arrow
from mdtool.adapters.datasets.parquet import ParquetFile
from mdtool.adapters.datasets.partitions import KEYS, folder_of, parse_keys, values_of
from mdtool.adapters.datasets.trade_rows import RowGroups, TradeRows
from mdtool.adapters.datasets.writer import staged
from mdtool.core.errors import InputError, OutputError, UsageError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.core.units import UNDEF_PRICE

NOON_NS = 1_758_715_200 * 10**9
"""2025-09-24T12:00:00Z."""
TIMES = ("exchange_timestamp", "ingest_timestamp")
PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)


def rows(n: int, begin: int = 0) -> TradeRows:
    column = np.arange(begin, begin + n)
    index = np.zeros(n, np.uint32)
    tables = SymbolTable(["A"]), SymbolTable(["s"])
    trades = Trades(index, column + 1, column + 1, column, column)
    return TradeRows(*tables, index, column, trades)


@given(st.text(PRINTABLE, min_size=1, max_size=70), st.integers(0, 100_000))
def test_a_folder_says_its_symbol_and_date_whatever_they_are(symbol, day):
    folder = folder_of(KEYS, symbol, day)
    assert len(folder.parts) == 2
    date = np.datetime64("1970-01-01") + day
    assert values_of(folder / "trades.csv") == {"date": str(date), "symbol": symbol}
    assert max(map(len, folder.parts)) <= 255


def test_symbols_are_escaped_as_hive_escapes_them():
    symbols = {
        "BRK/B": "BRK%2FB",
        "A=B": "A%3DB",
        "50%": "50%25",
        "A:B": "A%3AB",
        "ES.C-0": "ES.C-0",
    }
    for symbol, name in symbols.items():
        assert str(folder_of(("symbol",), symbol, 0)) == f"symbol={name}"
    with pytest.raises(OutputError, match="take a folder of this name for null"):
        folder_of(("symbol",), "__HIVE_DEFAULT_PARTITION__", 0)


def test_keys_come_in_the_order_that_was_asked_for():
    assert parse_keys("date,symbol") == ("date", "symbol")
    assert parse_keys("symbol, date") == ("symbol", "date")
    assert parse_keys("none") == ()
    for text in ("", "date,date", "date,venue", "none,date"):
        with pytest.raises(UsageError, match="give date, symbol"):
            parse_keys(text)


def test_other_folders_say_nothing():
    assert values_of(Path("/a=b/date/symbol=A%20B/x.csv")) == {"symbol": "A B"}


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7))
def test_groups_hold_all_rows_in_order_and_are_of_one_size(pieces, size):
    row_groups, groups, begin = RowGroups(size), [], 0
    for n in pieces:
        groups += row_groups.add(rows(n, begin))
        begin += n
    groups += row_groups.rest()
    assert all(len(group) == size for group in groups[:-1])
    assert all(0 < len(group) <= size for group in groups)
    sequence = [each for group in groups for each in group.sequence.tolist()]
    assert sequence == list(range(begin))


def test_a_staged_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "t.csv"
    with staged(target, ".csv", replaces=False, is_folder=False) as path:
        path.write_text("all")
        assert not target.exists()
    assert target.read_text() == "all"
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert list(target.parent.iterdir()) == [target]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("is_folder", [False, True])
def test_nothing_is_left_after_an_error(tmp_path, error, is_folder):
    def fail():
        with staged(tmp_path / "t", ".csv", replaces=True, is_folder=is_folder) as path:
            (path / "a.csv" if is_folder else path).write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_dataset_stays_until_the_new_one_is_complete(tmp_path):
    folder = tmp_path / "d"
    (folder / "symbol=A").mkdir(parents=True)
    (folder / "symbol=A" / "trades.csv").write_text("old")
    with staged(folder, ".csv", replaces=True, is_folder=True) as path:
        (path / "symbol=B").mkdir()
        (path / "symbol=B" / "trades.csv").write_text("new")
        assert (folder / "symbol=A" / "trades.csv").read_text() == "old"
    assert [each.name for each in folder.iterdir()] == ["symbol=B"]
    assert list(tmp_path.iterdir()) == [folder]


def _fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("disturb", "error", "kept"),
    [
        pytest.param(_fail, OutputError, "old", id="a failure"),
        pytest.param(
            lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt, "new", id="an interrupt"
        ),
    ],
)
def test_a_folder_is_replaced_or_not_whatever_comes_in_between(
    tmp_path, monkeypatch, disturb, error, kept
):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "t.csv").write_text("old")
    rename = Path.rename

    def disturbed(path, target):
        if path.name == "d" and target == folder:
            disturb()
        return rename(path, target)

    def export():
        with staged(folder, ".csv", replaces=True, is_folder=True) as path:
            (path / "t.csv").write_text("new")
            monkeypatch.setattr(Path, "rename", disturbed)

    with pytest.raises(error):
        export()
    assert (folder / "t.csv").read_text() == kept
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_created_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "t.csv"

    def export():
        with staged(target, ".csv", replaces=False, is_folder=False) as path:
            path.write_text("ours")
            target.write_text("theirs")

    with pytest.raises(OutputError, match="exists already"):
        export()
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["notes.txt", "symbol=A/notes.txt", "other/trades.csv"])
def test_a_folder_of_other_things_is_not_replaced(tmp_path, name):
    file = tmp_path / "d" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")

    def export():
        with staged(tmp_path / "d", ".csv", replaces=True, is_folder=True):
            pass

    with pytest.raises(OutputError, match="-f replaces datasets"):
        export()
    assert file.read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    with staged(folder, ".csv", replaces=False, is_folder=True) as path:
        (path / "a.csv").write_text("all")
    assert (folder / "a.csv").read_text() == "all"


def noon_table() -> pa.Table:
    """Three rows, a second apart."""
    made = rows(3)
    ts_event = NOON_NS + np.arange(3) * 10**9
    times = {"ts_event": ts_event, "ts_recv": ts_event + 5 * 10**9}
    made = replace(made, trades=replace(made.trades, **times))
    return pa.Table.from_batches([arrow.batch(made, has_symbol=True)])


def with_column(table: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def read_back(table: pa.Table, path: Path) -> TradeRows:
    """Return the rows of a Parquet file with these columns."""
    pq.write_table(table, path)
    (only,) = ParquetFile(path, arrow.Tables()).rows()
    return only


@pytest.mark.parametrize("timezone", ["UTC", "America/Chicago", None])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_are_the_same_nanoseconds(tmp_path, unit, timezone):
    table = noon_table()
    for name in TIMES:
        table = with_column(table, name, table[name].cast(pa.timestamp(unit, timezone)))
    trades = read_back(table, tmp_path / "t.parquet").trades
    seconds = np.arange(3) * 10**9
    assert trades.ts_event.tolist() == (NOON_NS + seconds).tolist()
    assert trades.ts_recv.tolist() == (NOON_NS + 5 * 10**9 + seconds).tolist()


@pytest.mark.parametrize("name", TIMES)
def test_times_as_integers_are_nanoseconds(tmp_path, name):
    table = noon_table()
    table = with_column(table, name, table[name].cast(pa.int64()))
    trades = read_back(table, tmp_path / "t.parquet").trades
    assert trades.ts_event.tolist() == [NOON_NS, NOON_NS + 10**9, NOON_NS + 2 * 10**9]
    assert trades.ts_recv[0] == NOON_NS + 5 * 10**9


def test_a_time_beyond_the_nanoseconds_of_int64_is_rejected(tmp_path):
    far = pa.array([2**62] * 3, pa.int64()).cast(pa.timestamp("us", "UTC"))
    table = with_column(noon_table(), "exchange_timestamp", far)
    with pytest.raises(InputError, match="column exchange_timestamp cannot be read"):
        read_back(table, tmp_path / "t.parquet")


@pytest.mark.parametrize(("name", "least"), [("volume", 1), ("sequence", 0)])
def test_the_least_value_of_a_column_is_read_and_one_below_is_not(tmp_path, name, least):
    def table(value: int) -> pa.Table:
        return with_column(noon_table(), name, pa.array(np.array([7, value, 8])))

    found = read_back(table(least), tmp_path / "least.parquet")
    columns = {"volume": found.trades.size, "sequence": found.sequence}
    assert columns[name].tolist() == [7, least, 8]
    with pytest.raises(InputError, match=f"has a {name} of {least - 1}; stored trades have"):
        read_back(table(least - 1), tmp_path / "below.parquet")


def test_prices_of_any_sign_are_read_and_none_beyond_int64(tmp_path):
    signed = np.array([-(2**63), 0, 2**63 - 2])
    table = with_column(noon_table(), "price", arrow.decimals(signed))
    assert read_back(table, tmp_path / "t.parquet").trades.price.tolist() == signed.tolist()
    beyond = pa.array([Decimal("9223372036.854775808")] * 3, arrow.PRICE)
    with pytest.raises(InputError, match="column price has a price beyond int64"):
        read_back(with_column(noon_table(), "price", beyond), tmp_path / "t.parquet")


def test_an_undefined_price_is_rejected(tmp_path):
    prices = arrow.decimals(np.array([1, UNDEF_PRICE, 3]))
    with pytest.raises(InputError, match="has the undefined price"):
        read_back(with_column(noon_table(), "price", prices), tmp_path / "t.parquet")
