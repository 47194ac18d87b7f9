import os
from itertools import chain
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest
import zstandard

from mdtool.adapters.dbn_files import open_merged, open_source
from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.core.dtypes import RTYPE_TRADE
from mdtool.core.errors import CorruptStreamError, InputError, UsageError
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support import dbn_files as files
from tests.support.instruments import bare


def write(path, *parts, schema="mbo"):
    path.write_bytes(streams.header(schema) + b"".join(bytes(encode_records(p)) for p in parts))
    return str(path)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_is_read_in_pieces_of_a_megabyte(tmp_path):
    path = write(tmp_path / "f.dbn", streams.mbo(50_000))
    with open_source(path) as source:
        arrays = list(bare(source))
        assert source.bytes_read == source.size_bytes == Path(path).stat().st_size
    assert max(map(len, arrays)) * 56 < (1 << 20) + 56
    assert np.array_equal(np.concatenate(arrays), streams.mbo(50_000))


def test_a_compressed_file_goes_by_its_bytes_not_its_name(tmp_path):
    plain = write(tmp_path / "f.dbn", streams.mbo(100))
    path = tmp_path / "compressed"
    path.write_bytes(zstandard.compress((tmp_path / "f.dbn").read_bytes()))
    with open_source(str(path)) as source, open_source(plain) as other:
        assert np.array_equal(np.concatenate(list(bare(source))), np.concatenate(list(bare(other))))


def test_records_of_a_pipe_come_as_soon_as_they_are_there(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    keeps_it_open = os.open(path, os.O_RDWR)
    with os.fdopen(os.open(path, os.O_WRONLY), "wb", buffering=0) as writer:
        writer.write(streams.header())
        with open_source(str(path)) as source:
            records = bare(source)
            for first in (0, 5):
                writer.write(encode_records(streams.mbo(5, first)))
                assert np.array_equal(next(records), streams.mbo(5, first))
            assert source.size_bytes is None
    os.close(keeps_it_open)


def test_a_source_learns_the_symbols_that_the_stream_tells(tmp_path):
    path = tmp_path / "live.dbn"
    live = streams.header(None) + streams.mapping(1, "LIVE") + encode_records(streams.mbo(2))
    path.write_bytes(live)
    with open_source(str(path)) as source:
        mapping, orders = source
    assert [*mapping.symbols, *orders.symbols] == ["LIVE", "LIVE", "MSFT"]


class TestWhatCannotBeOpened:
    def test_no_such_file(self):
        with pytest.raises(InputError, match=r"^none\.dbn: no such file$"):
            open_source("none.dbn")

    def test_a_directory(self, tmp_path):
        with pytest.raises(InputError, match="is a directory; give the DBN files in it"):
            open_source(str(tmp_path))

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "f").touch()
        with pytest.raises(InputError, match="f: is empty"):
            open_source(str(tmp_path / "f"))

    def test_a_text_file(self, tmp_path):
        (tmp_path / "f.csv").write_text("ts_recv,ts_event\n")
        with pytest.raises(InputError, match="is not a DBN stream"):
            open_source(str(tmp_path / "f.csv"))

    def test_a_file_within_a_file(self, tmp_path):
        (tmp_path / "f").touch()
        with pytest.raises(InputError, match="Not a directory"):
            open_source(str(tmp_path / "f" / "g"))

    def test_what_was_opened_is_closed_again(self, tmp_path):
        good = write(tmp_path / "f.dbn", streams.mbo(1))
        before = open_files()
        for _ in range(3):
            with pytest.raises(InputError):
                open_merged([good, "none.dbn"])
            with pytest.raises(InputError):
                open_source(str(tmp_path))
        assert open_files() <= before


def test_a_file_cut_in_a_record_gives_all_whole_ones_first(tmp_path):
    path = tmp_path / "f.dbn"
    path.write_bytes((streams.header() + encode_records(streams.mbo(30_000)))[:-1])
    got = []
    with (
        open_source(str(path)) as source,
        pytest.raises(CorruptStreamError, match="after 29,999 whole records"),
    ):
        got.extend(bare(source))
    assert np.array_equal(np.concatenate(got), streams.mbo(29_999))


class TestMerged:
    def test_records_come_in_order_of_time_and_then_of_files(self, tmp_path):
        even = write(tmp_path / "a.dbn", streams.mbo(20_000, 0, 2000))
        odd = write(tmp_path / "b.dbn", streams.mbo(30_000, 0, 1000))
        with open_merged([even, odd]) as source:
            got = np.concatenate(list(bare(source)))
            assert source.bytes_read == source.size_bytes
        both = np.concatenate([streams.mbo(20_000, 0, 2000), streams.mbo(30_000, 0, 1000)])
        assert np.array_equal(got, both[np.argsort(both["ts_recv"], kind="stable")])

    def test_one_file_needs_no_merge(self, tmp_path):
        path = write(tmp_path / "a.dbn", streams.mbo(3))
        with open_merged([path]) as source:
            assert source.name == path

    def test_files_of_two_schemas_make_a_stream_of_none(self, tmp_path):
        orders = write(tmp_path / "a.dbn", streams.mbo(4))
        bars = write(tmp_path / "b.dbn", streams.bars(1, 32), schema="ohlcv-1s")
        with open_merged([orders, bars]) as source:
            assert source.metadata.schema is None
            assert [len(array) for array in source] == [1, 1, 3]

    def test_trades_are_taken_out_of_each_file(self, tmp_path):
        orders = write(tmp_path / "a.dbn", streams.mbo(6))
        trades = write(tmp_path / "b.dbn", streams.trades(2, 6), schema="trades")
        with open_merged([orders, trades], "trades") as source:
            assert str(source.metadata.schema) == "trades"
            got = np.concatenate(list(bare(source)))
        assert got["sequence"].tolist() == [0, 3, 6, 7]

    def test_stdin_cannot_be_read_twice(self):
        with pytest.raises(UsageError, match="standard input can be read once"):
            open_merged(["-", "-"])

    def test_a_broken_file_among_others_names_itself(self, tmp_path):
        good = write(tmp_path / "a.dbn", streams.mbo(2))
        (tmp_path / "b.dbn").write_bytes((streams.header() + encode_records(streams.mbo(2)))[:-1])
        with (
            open_merged([good, str(tmp_path / "b.dbn")]) as source,
            pytest.raises(CorruptStreamError, match=r"b\.dbn: ends inside a record"),
        ):
            list(source)


class TestAppendedFiles:
    """What a shell makes of `cat one.dbn two.dbn`."""

    @staticmethod
    def joined(tmp_path, *parts: bytes) -> str:
        path = tmp_path / "joined.dbn"
        path.write_bytes(b"".join(parts))
        return str(path)

    @staticmethod
    def day(day: int, names: dict[str, int]) -> bytes:
        midnight = files.MAY_1 + (day - 1) * files.DAY
        trades = [files.trade(number, midnight, 10 * day, 1) for number in names.values()]
        header = files.header({name: {day: number} for name, number in names.items()})
        return header.encode() + b"".join(trades)

    def test_records_have_the_names_of_their_own_header(self, tmp_path):
        path = self.joined(tmp_path, self.day(1, {"AAPL": 7}), self.day(2, {"MSFT": 7, "AAPL": 8}))
        with open_source(path) as source:
            named = [
                *chain.from_iterable(
                    batch.symbols for batch in source if batch.rtype == RTYPE_TRADE
                )
            ]
        assert named == ["AAPL", "MSFT", "AAPL"]

    def test_under_the_first_header_mappings_are_written_for_the_others(self, tmp_path):
        path = self.joined(tmp_path, self.day(1, {"AAPL": 7}), self.day(2, {"MSFT": 7, "AAPL": 8}))
        out = tmp_path / "out.dbn"
        with open_source(path) as source:
            output = open_output(OutputSpec("dbn", str(out)), source.metadata)
            for batch in source:
                output.write(batch)
            output.close()
        theirs = dbn.DBNDecoder().write_and_decode(out.read_bytes())[1:]
        mapped = {
            each.instrument_id: each.stype_out_symbol
            for each in theirs
            if isinstance(each, dbn.SymbolMappingMsg)
        }
        assert mapped == {7: "MSFT", 8: "AAPL"}
        with open_source(str(out)) as again:
            trades = [batch.symbols for batch in again if batch.rtype == RTYPE_TRADE]
        assert [*chain.from_iterable(trades)] == ["AAPL", "MSFT", "AAPL"]

    def test_headers_that_say_the_same_add_nothing(self, tmp_path):
        day = self.day(1, {"AAPL": 7})
        with open_source(self.joined(tmp_path, day, day)) as source:
            assert [batch.rtype for batch in source] == [RTYPE_TRADE] * 2

    def test_headers_that_contradict_each_other(self, tmp_path):
        path = self.joined(tmp_path, self.day(1, {"AAPL": 7}), self.day(1, {"MSFT": 7}))
        with open_source(path) as source, pytest.raises(InputError, match=r"joined\.dbn.*MSFT"):
            list(source)

    def test_a_file_is_resumed_behind_a_header_and_an_unknown_record(self, tmp_path):
        orders = streams.header() + bytes(encode_records(streams.mbo(5)))
        path = self.joined(tmp_path, orders, bytes([4, 200]) + bytes(14), orders)
        with open_source(path) as source:
            *_, last = source
            place = source.position_before(2)
            assert len(last) == 5
        with open_source(path) as source:
            source.resume(place)
            assert np.array_equal(np.concatenate(list(bare(source))), streams.mbo(2, 3))


def test_unknown_records_are_told_once(tmp_path, caplog):
    unknown = bytes([4, 200]) + bytes(14)
    path = tmp_path / "f.dbn"
    path.write_bytes(streams.header() + 3 * unknown + bytes(encode_records(streams.mbo(1))))
    with open_source(str(path)) as source:
        assert sum(map(len, source)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: skipped 3 records of unknown rtype 200"
    ]


class TestHeadersThatAreWrong:
    NAMES = {"ESM4": {1: 1}}  # noqa: RUF012 - nothing changes it

    def trades(self, path, start, *seconds):
        records = [files.trade(1, files.MAY_1 + at * 10**9, 100, 1) for at in seconds]
        return str(files.write(path, files.header(self.NAMES, start=start), *records))

    @pytest.mark.parametrize("start", [0, 2**64 - 1, files.MAY_1 + files.HOUR])
    def test_files_are_merged_by_their_records_whatever_their_start(self, tmp_path, start):
        right = self.trades(tmp_path / "right", files.MAY_1, 1, 4, 7)
        wrong = self.trades(tmp_path / "wrong", start, 2, 3, 8)
        for paths in ([right, wrong], [wrong, right]):
            with open_merged(paths) as source:
                times = np.concatenate([batch.index_timestamps for batch in source])
            assert ((times - files.MAY_1) // 10**9).tolist() == [1, 2, 3, 4, 7, 8]

    def test_a_file_is_not_read_before_the_others_have_come_so_far(self, tmp_path):
        one = self.trades(tmp_path / "one", 0, 1, 2)
        two = self.trades(tmp_path / "two", 0, *range(1_000, 6_000))
        with open_source(one) as first, open_source(two) as second:
            begins = first.begin_ns, second.begin_ns
            assert begins == (files.MAY_1 + 10**9, files.MAY_1 + 1_000 * 10**9)
            assert second.bytes_read == 0
