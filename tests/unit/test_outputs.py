import datetime as dt
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import databento_dbn as dbn
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from mdtool.adapters.outputs import FORMATS, OutputSpec, format_of, open_output
from mdtool.adapters.outputs.columns import GROUP_RECORDS
from mdtool.adapters.outputs.destination import Destination
from mdtool.core.dtypes import SYMBOL_MAPPING
from mdtool.core.errors import OutputError, UsageError
from mdtool.wire.dbn import DbnDecoder
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch, named
from tests.support.users import as_nobody, folder_for_all

COLUMNAR = {
    "parquet": pyarrow.parquet.read_table,
    "arrow": lambda path: pyarrow.ipc.open_file(pa.OSFile(str(path))).read_all(),
}


def written(tmp_path, file_format, *arrays, schema="mbo", **options) -> Path:
    path = tmp_path / f"out.{file_format}"
    metadata = streams.metadata(schema)
    output = open_output(OutputSpec(file_format, str(path), **options), metadata)
    for records in arrays:
        output.write(named(records, metadata))
    output.close()
    return path


@pytest.mark.parametrize("file_format", ["dbn", "dbn.zst"])
def test_dbn_is_read_back(tmp_path, file_format):
    path = written(tmp_path, file_format, streams.mbo(5), streams.mbo(5, 5))
    decoder = DbnDecoder()
    runs = decoder.feed(path.read_bytes())
    decoder.finish()
    assert np.array_equal(np.concatenate(runs), streams.mbo(10))
    assert decoder.metadata == streams.metadata()
    assert decoder.is_compressed is (file_format == "dbn.zst")


def test_dbn_is_what_databento_writes(tmp_path):
    path = written(tmp_path, "dbn", streams.mbo(5))
    metadata, *records = dbn.DBNDecoder().write_and_decode(path.read_bytes())
    assert metadata.encode() + b"".join(map(bytes, records)) == path.read_bytes()


def test_records_that_lie_apart_in_memory_are_written_together(tmp_path):
    path = written(tmp_path, "dbn", streams.mbo(10)[::2])
    (run,) = DbnDecoder().feed(path.read_bytes())
    assert np.array_equal(run, streams.mbo(10)[::2])


@pytest.mark.parametrize("name", ["csv.zst", "json.zst", "jsonl.zst", "dbn.zst"])
def test_compressed_text_is_the_text(tmp_path, name):
    plain = written(tmp_path, name.removesuffix(".zst"), streams.mbo(5), maps_symbols=True)
    path = written(tmp_path, name, streams.mbo(5), maps_symbols=True)
    with path.open("rb") as file:
        unwrapped = zstandard.ZstdDecompressor().stream_reader(file).read()
    assert unwrapped == plain.read_bytes()


def test_what_was_flushed_of_a_compressed_stream_can_be_read(tmp_path):
    path = tmp_path / "out.dbn.zst"
    output = open_output(OutputSpec("dbn.zst", str(path), is_staged=False), streams.metadata())
    output.write(batch(streams.mbo(7)))
    output.flush()
    (run,) = DbnDecoder().feed(path.read_bytes())
    assert len(run) == 7
    output.close()


def test_records_go_out_at_once(tmp_path):
    for file_format in ("dbn", "csv", "json"):
        path = tmp_path / f"out.{file_format}"
        output = open_output(
            OutputSpec(file_format, str(path), is_staged=False), streams.metadata()
        )
        sizes = [0]
        for first in range(3):
            output.write(batch(streams.mbo(1, first)))
            sizes.append(path.stat().st_size)
        assert len(set(sizes)) == 4
        output.close()


@pytest.mark.parametrize("file_format", ["dbn", "csv"])
def test_a_stream_gets_its_header_before_there_are_records(tmp_path, file_format):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    output = open_output(OutputSpec(file_format, str(path)), streams.metadata())
    header = os.read(reader, 1 << 16)
    output.close()
    os.close(reader)
    assert header == written(tmp_path, file_format).read_bytes() != b""


@pytest.mark.parametrize("file_format", FORMATS)
class TestBeforeThereAreRecords:
    def test_there_is_no_file(self, tmp_path, file_format):
        path = tmp_path / f"out.{file_format}"
        open_output(OutputSpec(file_format, str(path)), streams.metadata())
        assert not path.exists()

    def test_what_is_to_be_replaced_is_there_still(self, tmp_path, file_format):
        path = tmp_path / f"out.{file_format}"
        path.write_text("precious")
        output = open_output(OutputSpec(file_format, str(path), replaces=True), streams.metadata())
        assert path.read_text() == "precious"
        output.close()
        assert b"precious" not in path.read_bytes()

    def test_another_may_take_the_name_and_keeps_it(self, tmp_path, file_format):
        path = tmp_path / f"out.{file_format}"
        output = open_output(OutputSpec(file_format, str(path)), streams.metadata())
        path.write_text("precious")
        with pytest.raises(OutputError, match="exists already; -f replaces it"):
            output.close()
        assert path.read_text() == "precious"


@pytest.mark.parametrize("file_format", COLUMNAR)
class TestColumns:
    def test_values_are_those_of_dbn(self, tmp_path, file_format):
        arrays = streams.mbo(5), streams.mbo(5, 5)
        table = COLUMNAR[file_format](written(tmp_path, file_format, *arrays, prices="int"))
        records = streams.mbo(10)
        assert table.column_names == [*dbn.MBOMsg._ordered_fields, "symbol"]
        for name in records.dtype.names[1:]:
            wanted = records[name].tolist()
            if records.dtype[name].kind == "S":
                wanted = [value.decode() for value in wanted]
            column = table[name]
            if name in dbn.MBOMsg._timestamp_fields:
                assert column.type == pa.timestamp("ns", "UTC")
                column = column.cast(pa.int64())
            assert column.to_pylist() == wanted
        assert table.schema.metadata == {b"dataset": b"TEST", b"schema": b"mbo"}

    @pytest.mark.parametrize("prices", [None, "decimal", "float", "int"])
    def test_prices_of_each_type_are_null_where_dbn_has_none(self, tmp_path, file_format, prices):
        kind, value_of = {
            "decimal": (pa.decimal128(19, 9), lambda price: Decimal(price).scaleb(-9)),
            "float": (pa.float64(), lambda price: price / 1e9),
            "int": (pa.int64(), int),
        }[prices or "decimal"]
        orders = streams.mbo(5)
        known = [1, -1_500_000_000, 0, 2**63 - 2]
        orders["price"] = [*known, 2**63 - 1]
        chosen = {"prices": prices} if prices else {}
        table = COLUMNAR[file_format](written(tmp_path, file_format, orders, **chosen))
        assert table.schema.field("price").type == kind
        assert table["price"].to_pylist() == [*map(value_of, known), None]

    def test_times_are_null_where_dbn_has_none(self, tmp_path, file_format):
        orders = streams.mbo(2)
        orders["ts_event"][1] = 2**64 - 1
        table = COLUMNAR[file_format](written(tmp_path, file_format, orders))
        assert table["ts_recv"].cast(pa.int64()).to_pylist() == orders["ts_recv"].tolist()
        moment = dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)
        assert table["ts_recv"][0].as_py() == moment
        assert table["ts_event"].cast(pa.int64()).to_pylist() == [int(orders["ts_event"][0]), None]

    @pytest.mark.parametrize("maker", [streams.mbo, streams.trades])
    def test_texts_are_strings_for_whoever_reads_them(self, tmp_path, file_format, maker):
        path = written(tmp_path, file_format, maker(3), schema=None)
        table = COLUMNAR[file_format](path)
        for name in ("action", "side", "symbol"):
            assert table.schema.field(name).type == pa.string()

    def test_symbols_are_the_last_column(self, tmp_path, file_format):
        orders = streams.mbo(3)
        orders["instrument_id"][2] = 9
        table = COLUMNAR[file_format](written(tmp_path, file_format, orders))
        assert table.column_names[-1] == "symbol"
        assert table["symbol"].to_pylist() == ["AAPL", "MSFT", None]

    def test_others_read_decimals_times_and_symbols(self, tmp_path, file_format):
        orders = streams.mbo(3)
        orders["price"] = [-37_630_000_000, 5, 2**63 - 1]
        path = written(tmp_path, file_format, orders)
        wanted = [
            (Decimal("-37.630000000"), "AAPL"),
            (Decimal("0.000000005"), "MSFT"),
            (None, "AAPL"),
        ]
        frame = (pl.read_parquet if file_format == "parquet" else pl.read_ipc)(path)
        assert frame.schema["price"] == pl.Decimal(19, 9)
        assert frame.schema["ts_recv"] == pl.Datetime("ns", "UTC")
        assert frame.select("price", "symbol").rows() == wanted
        columns = COLUMNAR[file_format](path)
        named = f"'{path}'" if file_format == "parquet" else "columns"
        rows = duckdb.sql(f"SELECT price, symbol, ts_recv FROM {named}")
        assert [str(kind) for kind in rows.types[:2]] == ["DECIMAL(19,9)", "VARCHAR"]
        assert str(rows.types[2]).startswith("TIMESTAMP")
        assert duckdb.sql(f"SELECT price, symbol FROM {named}").fetchall() == wanted
        pytest.importorskip("pandas")
        assert columns.to_pandas()["price"].tolist() == [price for price, _ in wanted]

    def test_records_go_out_in_groups(self, tmp_path, file_format):
        path = tmp_path / f"out.{file_format}"
        output = open_output(
            OutputSpec(file_format, str(path), is_staged=False), streams.metadata()
        )
        output.write(batch(streams.mbo(GROUP_RECORDS - 1)))
        assert not path.exists()
        output.write(batch(streams.mbo(2)))
        assert path.stat().st_size > 100_000
        output.close()
        assert COLUMNAR[file_format](path).num_rows == GROUP_RECORDS + 1

    @pytest.mark.parametrize("schema", ["mbo", None])
    def test_no_records_make_an_empty_table(self, tmp_path, file_format, schema):
        table = COLUMNAR[file_format](written(tmp_path, file_format, schema=schema))
        assert table.num_rows == 0
        assert table.num_columns == (15 if schema else 0)

    def test_symbols_that_are_no_text(self, tmp_path, file_format):
        orders = streams.mbo(1)
        orders["action"] = b"\xff"
        with pytest.raises(OutputError, match=r"action is not text"):
            written(tmp_path, file_format, orders)


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
class TestRecordsOfOtherColumns:
    def test_they_are_left_out_and_counted(self, tmp_path, file_format, caplog):
        parts = [streams.bars(3, 32), streams.mbo(2), streams.bars(4, 17)]
        path = written(tmp_path, file_format, *parts, schema=None)
        assert "left out 2 records with other columns" in caplog.text
        rows = (
            len(path.read_bytes().splitlines()) - 1
            if file_format == "csv"
            else pyarrow.parquet.read_table(path).num_rows
        )
        assert rows == 7

    def test_what_a_stream_says_of_itself_is_no_data(self, tmp_path, file_format, caplog):
        mapping = np.frombuffer(streams.mapping(1, "AAPL"), SYMBOL_MAPPING)
        written(tmp_path, file_format, mapping, streams.mbo(2), schema=None)
        assert caplog.text == ""


def test_csv_of_an_empty_stream_is_its_header(tmp_path):
    assert written(tmp_path, "csv").read_text().startswith("ts_recv,ts_event,rtype,")
    assert written(tmp_path, "csv", schema=None, replaces=True).read_text() == ""


class TestFiles:
    def test_a_file_that_is_there_stays(self, tmp_path):
        (tmp_path / "out.csv").write_text("precious")
        with pytest.raises(OutputError, match=r"out\.csv: exists already; -f replaces it"):
            written(tmp_path, "csv", streams.mbo(1))
        assert (tmp_path / "out.csv").read_text() == "precious"

    def test_a_file_that_is_replaced_can_still_be_read_by_who_has_it_open(self, tmp_path):
        (tmp_path / "out.csv").write_text("precious")
        with (tmp_path / "out.csv").open() as reader:
            path = written(tmp_path, "csv", streams.mbo(1), replaces=True)
            assert reader.read() == "precious"
        assert path.read_text().count("\n") == 2

    @pytest.mark.parametrize("replaces", [False, True])
    def test_a_staged_file_appears_once_it_is_complete(self, tmp_path, replaces):
        path = tmp_path / "out.csv"
        if replaces:
            path.write_text("precious")
        destination = Destination(str(path), replaces)
        destination.write(b"a")
        assert path.exists() is replaces
        assert not replaces or path.read_text() == "precious"
        destination.write(b"b")
        destination.close()
        assert path.read_text() == "ab"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_staged_file_that_is_not_closed_leaves_nothing(self, tmp_path):
        destination = Destination(str(tmp_path / "out.csv"))
        destination.write(b"a")
        assert len(list(tmp_path.iterdir())) == 1
        del destination
        gc.collect()
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_not_staged_grows_in_place(self, tmp_path):
        destination = Destination(str(tmp_path / "out.csv"), is_staged=False)
        destination.write(b"a")
        assert (tmp_path / "out.csv").read_text() == "a"
        destination.close()

    def test_a_link_is_replaced_and_what_it_led_to_stays(self, tmp_path):
        (tmp_path / "target").write_text("precious")
        (tmp_path / "out.csv").symlink_to(tmp_path / "target")
        written(tmp_path, "csv", streams.mbo(1), replaces=True)
        assert (tmp_path / "target").read_text() == "precious"

    def test_a_device_is_written_to_and_never_replaced(self):
        Destination("/dev/null", replaces=True).write(b"x")
        assert not Path("/dev/null").is_file()

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(OutputError, match="No such file or directory"):
            Destination(str(tmp_path / "none" / "out.csv"))

    def test_a_folder_that_this_user_may_not_write(self):
        with (
            folder_for_all() as folder,
            as_nobody(),
            pytest.raises(OutputError, match="Permission denied"),
        ):
            Destination(str(folder / "out.csv"))

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(OutputError, match="Is a directory"):
            Destination(str(tmp_path), replaces=True)

    def test_a_disk_that_is_full(self):
        with pytest.raises(OutputError, match="/dev/full: No space left on device"):
            Destination("/dev/full").write(b"x")

    def test_a_reader_that_left_is_no_error_of_ours(self, tmp_path):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        destination = Destination(str(path))
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            destination.write(b"x")
        destination.close()

    def test_a_pipe_that_does_not_block_is_waited_for(self, tmp_path):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        destination = Destination(str(path))
        os.set_blocking(destination._fd, False)
        os.set_blocking(reader, True)
        with os.fdopen(reader, "rb") as file, ThreadPoolExecutor() as pool:
            read = pool.submit(file.read)
            destination.write(b"x" * 1_000_000)
            destination.close()
            assert len(read.result()) == 1_000_000


def test_a_files_name_tells_its_format():
    for name in FORMATS:
        assert format_of(f"a.b.{name}") == name
    for name in ("csv", "a.txt", "dbn.zst.", "x.zst"):
        with pytest.raises(UsageError, match="choose a format with"):
            format_of(name)


def test_zstd_output_shrinks(tmp_path):
    path = written(tmp_path, "dbn.zst", streams.mbo(10_000))
    assert path.stat().st_size < 560_000 / 3
    assert zstandard.get_frame_parameters(path.read_bytes()).window_size > 0
