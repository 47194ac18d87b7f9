"""`mdtool store export` and `import` as their users run them, and other readers of datasets."""

from __future__ import annotations

import subprocess
from decimal import Decimal

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
import pytest

from mdtool.adapters.stores import open_history
from tests.support.commands import output_of
from tests.support.requirements import missing
from tests.support.store_commands import (
    DAY_NS,
    NOON_NS,
    SYMBOLS,
    dbn,
    held,
    put,
    store,
    trades,
    url,
    write,
)
from tests.support.stores import STORES

COLUMNS = [
    "symbol",
    "exchange_timestamp",
    "price",
    "volume",
    "ingest_timestamp",
    "stream_id",
    "sequence",
]
COMMON = ", ".join(COLUMNS)
ORDER = ["symbol", "exchange_timestamp", "stream_id", "sequence"]
TIME = pa.timestamp("ns", "UTC")
SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange_timestamp", TIME),
        ("price", pa.decimal128(19, 9)),
        ("volume", pa.int64()),
        ("ingest_timestamp", TIME),
        ("stream_id", pa.string()),
        ("sequence", pa.int64()),
    ]
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store of two streams over two days: the largest numbers, and a symbol for each escape."""
    folder = tmp_path_factory.mktemp("filled")
    where = url(folder)
    days = [trades(400), trades(300, begin_ns=NOON_NS + DAY_NS // 2 - 10**9, seed=2)]
    for number, records in enumerate(days):
        store(write(folder / f"{number}.dbn", records), "--store", where)
    largest = 2**63 - 2
    put(where, SYMBOLS, [(1, largest, 2**63 - 1, NOON_NS), (2, 1, 1, NOON_NS + 1)], "live")
    return where


@pytest.fixture(scope="module")
def dbn_filled(tmp_path_factory):
    """A store of what DBN can tell."""
    folder = tmp_path_factory.mktemp("dbn")
    where = url(folder)
    for number in range(2):
        records = trades(300, begin_ns=NOON_NS + number * DAY_NS, seed=number)
        store(write(folder / f"{number}.dbn", records), "--store", where)
    return where


def table_of(rows: list[tuple]) -> pa.Table:
    """`held` rows as the dataset's columns, in order."""
    symbol, ts, stream, sequence, price, volume, ingest = zip(*rows, strict=True)
    table = pa.table(
        {
            "symbol": pa.array(symbol),
            "exchange_timestamp": pa.array(ts, pa.int64()).cast(TIME),
            "price": pa.array([Decimal(each).scaleb(-9) for each in price], SCHEMA[2].type),
            "volume": pa.array(volume, pa.int64()),
            "ingest_timestamp": pa.array(ingest, pa.int64()).cast(TIME),
            "stream_id": pa.array(stream),
            "sequence": pa.array(sequence, pa.int64()),
        }
    )
    return in_order(table)


def in_order(table: pa.Table) -> pa.Table:
    return table.select(COLUMNS).cast(SCHEMA).sort_by([(name, "ascending") for name in ORDER])


@pytest.mark.parametrize("keys", ["date,symbol", "symbol,date", "symbol", "date", "none"])
def test_arrow_duckdb_and_polars_read_parquet_back_equal(filled, tmp_path, keys):
    target = tmp_path / ("trades.parquet" if keys == "none" else "dataset")
    store("export", target, "--partition", keys, "--store", filled, "--format", "parquet")
    wanted = table_of(held(filled))
    files = target if keys == "none" else target / "**" / "*.parquet"

    dataset = pyarrow.dataset.dataset(target, partitioning="hive")
    assert in_order(dataset.to_table()) == wanted
    assert in_order(pyarrow.parquet.read_table(target)) == wanted

    read = duckdb.sql(f"SELECT {COMMON} FROM read_parquet('{files}', hive_partitioning = true)")
    assert read.types[1:4] == ["TIMESTAMPTZ_NS", "DECIMAL(19,9)", "BIGINT"]
    assert in_order(read.to_arrow_table()) == wanted

    frame = pl.read_parquet(target, hive_partitioning=keys != "none")
    assert frame.schema["exchange_timestamp"] == pl.Datetime("ns", "UTC")
    assert frame.schema["price"] == pl.Decimal(19, 9)
    assert in_order(frame.to_arrow()) == wanted


def test_dates_are_folders_that_readers_narrow_by(filled, tmp_path):
    store("export", tmp_path / "d", "--store", filled)
    wanted = [row for row in held(filled) if row[1] // DAY_NS == (NOON_NS + DAY_NS) // DAY_NS]
    dataset = pyarrow.dataset.dataset(tmp_path / "d", partitioning="hive")
    narrowed = dataset.to_table(filter=pyarrow.dataset.field("date") == "2025-09-25")
    assert in_order(narrowed) == table_of(wanted)
    (count,) = duckdb.sql(
        f"SELECT count(*) FROM '{tmp_path}/d/**/*.parquet' WHERE date = DATE '2025-09-25'"
    ).fetchall()
    assert count == (len(wanted),)


def test_csv_is_read_back_equal_with_its_types(filled, tmp_path):
    target = tmp_path / "trades.csv"
    store("export", target, "--store", filled)
    rows = held(filled)
    types = {"price": SCHEMA[2].type, "symbol": pa.string(), "stream_id": pa.string()}
    options = pyarrow.csv.ConvertOptions(column_types=types)
    assert in_order(pyarrow.csv.read_csv(target, convert_options=options)) == table_of(rows)
    read = duckdb.sql(
        f"SELECT {COMMON} FROM read_csv('{target}', types = {{'price': 'DECIMAL(19,9)'}})"
    )
    assert in_order(read.to_arrow_table()) == table_of(rows)
    frame = pl.read_csv(target, schema_overrides={"price": pl.Decimal(19, 9)})
    assert in_order(frame.to_arrow()) == table_of(rows)


def test_csv_keeps_times_and_volumes_where_types_are_inferred(filled, tmp_path):
    target = tmp_path / "trades.csv"
    store("export", target, "--store", filled)
    wanted = sorted((row[1], row[5], row[3]) for row in held(filled))
    columns = "exchange_timestamp, volume, sequence"
    assert sorted(duckdb.sql(f"SELECT {columns} FROM '{target}'").fetchall()) == wanted
    frame = pl.read_csv(target)
    assert sorted(frame.select(columns.split(", ")).rows()) == wanted


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
@pytest.mark.parametrize("keys", ["date,symbol", "date", "none"])
def test_export_import_export_is_the_same_again(filled, tmp_path, file_format, keys):
    name = f"trades.{file_format}" if keys == "none" else "dataset"
    first, second = tmp_path / "1" / name, tmp_path / "2" / name
    options = ["--format", file_format, "--partition", keys]
    store("export", first, *options, "--store", filled)
    copy = url(tmp_path)
    assert "702 trades new, 0 known already" in store("import", first, "--store", copy)
    assert held(copy) == held(filled)
    with open_history(copy) as ours, open_history(filled) as theirs:
        assert ours.symbols() == theirs.symbols()
    assert "702 trades, differences: 0" in store("check", "--store", copy)
    store("export", second, *options, "--store", copy)
    assert contents(first) == contents(second)
    assert "0 trades new, 702 known already" in store("import", first, "--store", copy)


@pytest.mark.parametrize("name", ["postgresql", "mongodb"])
def test_it_is_the_same_again_across_kinds_of_stores(filled, tmp_path, name):
    with STORES[name](tmp_path) as new_url:
        other = new_url()
        first, second = tmp_path / "1", tmp_path / "2"
        store("export", first, "--store", filled)
        assert "702 trades new" in store("import", first, "--store", other)
        assert held(other) == held(filled)
        assert "702 trades, differences: 0" in store("check", "--store", other)
        store("export", second, "--store", other)
        assert contents(first) == contents(second)
        third = url(tmp_path)
        assert "702 trades new" in store("import", second, "--store", third)
        assert held(third) == held(filled)
        assert "0 trades new, 702 known already" in store("import", second, "--store", other)


def contents(path) -> dict:
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        file.relative_to(path): file.read_bytes() for file in path.rglob("*.*") if file.is_file()
    }


@pytest.mark.parametrize("keys", ["date,symbol", "date", "none"])
def test_dbn_is_exported_with_its_symbols_and_comes_back(dbn_filled, tmp_path, keys):
    name = "trades.dbn" if keys == "none" else "dataset"
    first, second = tmp_path / "1" / name, tmp_path / "2" / name
    options = ["--format", "dbn", "--partition", keys]
    store("export", first, *options, "--store", dbn_filled)
    for file in [first] if keys == "none" else sorted(first.rglob("*.dbn")):
        times = times_of(file)
        assert times == sorted(times)
    copy = url(tmp_path)
    assert "600 trades new, 0 known" in store("import", first, "--store", copy)
    values = [(row[0], row[1], *row[4:]) for row in held(dbn_filled)]
    assert sorted((row[0], row[1], *row[4:]) for row in held(copy)) == sorted(values)
    assert "0 trades new, 600 known" in store("import", first, "--store", copy)
    store("export", second, *options, "--store", copy)
    assert contents(first) == contents(second)


def times_of(file) -> list[str]:
    """What another command reads of a file; each symbol is one of the store's."""
    lines = output_of("replay-dbn", file, "-C", "-s").decode().splitlines()
    names = lines[0].split(",")
    assert {line.split(",")[names.index("symbol")] for line in lines[1:]} <= set(SYMBOLS)
    return [line.split(",")[names.index("ts_event")] for line in lines[1:]]


def test_a_volume_beyond_dbn_is_rejected_and_nothing_remains(filled, tmp_path):
    said = "CLX5 at 2025-09-24T12:00:00.000000000Z: a volume of 9,223,372,036,854,775,807 does not"
    for target in ("trades.dbn", "dataset"):
        store(
            "export", tmp_path / target, "--format", "dbn", "--store", filled, status=1, said=said
        )
    assert list(tmp_path.iterdir()) == []


def test_symbols_and_times_are_selected(filled, tmp_path):
    target, end = tmp_path / "part.csv", NOON_NS + 5 * 10**9
    options = ["--symbols", "ESZ5,BRK/B", "--start", NOON_NS + 1, "--end", end]
    wanted = [r for r in held(filled) if r[0] in {"ESZ5", "BRK/B"} and NOON_NS < r[1] < end]
    said = store("export", target, *options, "--store", filled)
    assert said == f"{target}: {len(wanted)} trades in 1 file\n"
    copy = url(tmp_path)
    store("import", target, "--store", copy)
    assert held(copy) == wanted
    whole = tmp_path / "whole.parquet"
    store("export", whole, "--store", filled)
    assert f"{702 - len(wanted)} trades new, {len(wanted)} known" in store(
        "import", whole, "--store", copy
    )
    assert held(copy) == held(filled)


def test_an_existing_dataset_is_replaced_only_with_force(filled, tmp_path):
    file, folder = tmp_path / "trades.csv", tmp_path / "dataset"
    file.write_text("mine")
    store("export", file, "--store", filled, status=1, said="exists already; -f replaces it")
    assert file.read_text() == "mine"
    store("export", file, "-f", "--store", filled)
    assert file.read_text().startswith('"symbol"')
    store("export", folder, "--store", filled)
    store("export", folder, "--store", filled, status=1, said="exists already; -f replaces it")
    store("export", folder, "-f", "--symbols", "ESZ5", "--store", filled)
    assert {path.parent.name for path in folder.rglob("*.parquet")} == {"symbol=ESZ5"}
    (folder / "notes.txt").write_text("mine")
    store("export", folder, "-f", "--store", filled, status=1, said="holds notes.txt")
    store("export", folder, "--partition", "none", "--store", filled, status=1, said="is a folder")
    store("export", file, "--partition", "date", "--store", filled, status=1, said="is a file")
    assert {path.name for path in tmp_path.iterdir()} == {"trades.csv", "dataset"}


def test_trades_that_cannot_be_exported_are_one_line(filled, tmp_path):
    target = tmp_path / "t.csv"
    nowhere = f"sqlite:///{tmp_path}/none.db"
    store("export", target, "--store", nowhere, status=1, said=f"{tmp_path}/none.db")
    said = "has no trades of NOPE; there are 50%, A=B"
    store("export", target, "--symbols", "NOPE", "--store", filled, status=1, said=said)
    store(
        "export", target, "--start", 5 * NOON_NS, "--store", filled, status=1, said="no such trades"
    )
    store("export", target, "--format", "xml", "--store", filled, status=2, said="choose from")
    store("export", target, "--format", "dbn", "--store", filled, status=2, said="is named .csv")
    store("export", "x.dbn.zst", "--store", filled, status=2, said="not compressed")
    keys = ["--partition", "venue"]
    store("export", tmp_path / "d", *keys, "--store", filled, status=2, said="give date, symbol")
    store("export", "/proc/d", "--store", filled, status=1, said="nothing was written")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(filled, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        missing("no file system of its own can be mounted here")
    try:
        for target in ("dataset", "trades.csv", "trades.parquet"):
            said = f"{small / target}: No space left on device; nothing was written"
            store("export", small / target, "--store", filled, status=1, said=said)
            assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def altered(filled, tmp_path, name, alter) -> str:
    """A dataset's file with something else in it."""
    source = tmp_path / f"source-{name}.parquet"
    store("export", source, "--store", filled)
    file = tmp_path / f"{name}.parquet"
    pyarrow.parquet.write_table(alter(pyarrow.parquet.read_table(source)), file)
    source.unlink()
    return file


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, values)


ALTERED = {
    "missing": (lambda t: t.drop_columns(["price", "stream_id"]), "has no column price, stream_id"),
    "foreign": (
        lambda t: t.append_column("venue", pa.nulls(len(t))),
        "column venue is not a column of trades",
    ),
    "float": (
        lambda t: with_column(t, "price", t["price"].cast(pa.float64())),
        "column price is double, not an exact decimal",
    ),
    "nulls": (
        lambda t: with_column(t, "volume", pa.nulls(len(t), pa.int64())),
        "column volume has 702 rows without a value",
    ),
    "negative": (
        lambda t: with_column(t, "volume", pa.array(np.full(len(t), -3))),
        "a volume of -3; stored trades have 1 or more",
    ),
    "symbol": (
        lambda t: with_column(t, "symbol", pa.array(["es z5\n"] * len(t))),
        "is not a valid symbol",
    ),
    "time": (
        lambda t: with_column(t, "exchange_timestamp", pa.array(["noon"] * len(t))),
        "column exchange_timestamp is string, not a time",
    ),
    "precise": (
        lambda t: with_column(
            t, "price", pa.array([Decimal("1.0000000001")] * len(t), pa.decimal128(38, 10))
        ),
        "column price cannot be read",
    ),
}


@pytest.mark.parametrize("name", ALTERED)
def test_files_that_are_not_exports_are_rejected(filled, tmp_path, name):
    alter, said = ALTERED[name]
    file, where = altered(filled, tmp_path, name, alter), url(tmp_path)
    store("import", file, "--store", where, status=1, said=said)


def test_a_bad_file_among_others_is_found_before_anything_is_written(filled, tmp_path):
    where, folder = url(tmp_path), tmp_path / "dataset"
    store("export", folder, "--store", filled)
    for content in (b"", b"PAR1 is not all that it takes PAR1"):
        (folder / "zzz.parquet").write_bytes(content)
        store(
            "import", folder, "--store", where, status=1, said="zzz.parquet: is not a Parquet file"
        )
    (folder / "zzz.parquet").unlink()
    (folder / "zzz.csv").write_text("symbol,price\nESZ5,1.5\n")
    store("import", folder, "--store", where, status=1, said="zzz.csv: has no column")
    (folder / "zzz.csv").rename(folder / "zzz.dbn")
    store("import", folder, "--store", where, status=1, said="zzz.dbn: is not a DBN stream")
    assert not (tmp_path / "s.db").exists()


def test_a_damaged_file_is_one_line(filled, tmp_path):
    file, where = tmp_path / "t.parquet", url(tmp_path)
    store("export", file, "--store", filled)
    content = bytearray(file.read_bytes())
    content[100:2_000] = bytes(1_900)
    file.write_bytes(content)
    store("import", file, "--store", where, status=1, said=f"mdtool: {file}: is damaged (")
    text = tmp_path / "t.csv"
    store("export", text, "--store", filled)
    lines = text.read_text().splitlines()
    lines[300] = lines[300].replace(",", ",x", 1)
    text.write_text("\n".join(lines))
    store("import", text, "--store", where, status=1, said="t.csv: ")


def test_invalid_paths_are_one_line(filled, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.txt").write_text("")
    where = ["--store", url(tmp_path)]
    store("import", tmp_path / "none", *where, status=1, said="no such file or folder")
    store("import", tmp_path / "empty", *where, status=1, said="has no .parquet, .csv, .dbn")
    store("import", tmp_path / "t.txt", *where, status=1, said="is not a file of a dataset")


def test_a_dataset_that_contradicts_the_store_is_rejected(filled, tmp_path):
    where = url(tmp_path)
    source = tmp_path / "source.parquet"
    store("export", source, "--store", filled)
    store("import", source, "--store", where)

    def other_price(table):
        prices = table["price"].to_pylist()
        prices[100] += Decimal("0.000000001")
        return with_column(table, "price", pa.array(prices, SCHEMA[2].type))

    file = altered(filled, tmp_path, "other", other_price)
    store("import", file, "--store", where, status=1, said="is not the one that was stored: at ")
    assert held(where) == held(filled)
    twice = altered(filled, tmp_path, "twice", lambda t: pa.concat_tables([t, t]))
    fresh = url(tmp_path, "fresh")
    assert "702 trades new, 702 known" in store("import", twice, "--store", fresh)
    assert held(fresh) == held(filled)


def test_a_dataset_rewritten_by_duckdb_is_imported(filled, tmp_path):
    source, again = tmp_path / "source", tmp_path / "again"
    store("export", source, "--store", filled)
    duckdb.sql(
        f"COPY (SELECT {COMMON} FROM read_parquet('{source}/**/*.parquet') ORDER BY sequence) "
        f"TO '{again}' (FORMAT parquet, PARTITION_BY (symbol))"
    )
    copy = url(tmp_path)
    assert "702 trades new" in store("import", again, "--store", copy)
    assert held(copy) == held(filled)


def test_the_dbn_that_is_exported_is_read_by_other_commands(dbn_filled, tmp_path):
    file = tmp_path / "t.dbn"
    store("export", file, "--store", dbn_filled)
    bars = output_of("aggregate", file, "--interval", "1d", "-C", "-s").splitlines()
    assert len(bars) == 1 + 2 * len(SYMBOLS)
    assert dbn(trades(1))[:3] == file.read_bytes()[:3]


def test_symbols_that_look_like_numbers_or_nothing_stay_symbols(tmp_path):
    symbols = ["000001", "600519", "NULL", "NA", "2025-09-24", "TRUE"]
    where = url(tmp_path)
    rows = [(k, 10**9 + k, 1, NOON_NS + k) for k in range(len(symbols))]
    put(where, symbols, rows)
    for number, options in enumerate((["--format", "csv"], [], ["--partition", "date"])):
        copy = url(tmp_path, f"copy-{number}")
        store("export", tmp_path / f"{number}", *options, "--store", where)
        store("import", tmp_path / f"{number}", "--store", copy)
        assert held(copy) == held(where)
    for target in ("one.csv", "one.parquet"):
        copy = url(tmp_path, target)
        store("export", tmp_path / target, "--store", where)
        store("import", tmp_path / target, "--store", copy)
        assert held(copy) == held(where)
