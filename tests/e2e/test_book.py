"""`mdtool book` as its users run it."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from mdtool.core.dtypes import F_LAST, MBP1, MBP10
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.reference.book import ReferenceBooks, mbo_of
from tests.support import dbn_files as files
from tests.support.commands import MDTOOL, output_of
from tests.support.dbn_files import decoded
from tests.support.processes import ChildProcess
from tests.support.screens import Session

SAMPLE = Path(__file__).parents[2] / "sample_data" / "mbo.dbn.zst"
PARTIAL = "partial book: orders from before its stream began, or lost, are not in it"


run = functools.partial(output_of, "book")


def on_a_terminal(*arguments: object) -> list[str]:
    """Run it where people see it, to its end; return the lines that stand there."""
    with Session([*MDTOOL, "book", *map(str, arguments)], size=(120, 40)) as session:
        assert session.end() == 0
        lines = session.screen.before.replace("\r", "").splitlines()
    return [line.rstrip() for line in lines]


def objects(output: bytes) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="session")
def sample() -> np.ndarray:
    return decoded(SAMPLE.read_bytes())


@pytest.fixture(scope="session")
def sample_json() -> bytes:
    return run(SAMPLE, "-J")


@pytest.fixture(scope="session")
def sample_events() -> bytes:
    return run(SAMPLE, "--emit", "event")


@pytest.fixture
def clx5(real_data) -> Path:
    return real_data / "CLX5_mbo.dbn"


@pytest.fixture
def esm4(real_data) -> Path:
    return real_data / "ESM4_mbo_snapshot.dbn.zst"


class TestFinal:
    def test_the_partial_book_of_clx5(self, clx5):
        [book] = objects(run(clx5, "--json"))
        assert list(book) == [
            "symbol",
            "publisher",
            "publisher_id",
            "timestamp",
            "timestamp_ns",
            "bbo",
            "levels",
            "stats",
            "partial",
            "anomalies",
        ]
        assert book["symbol"] == "CLX5"
        assert book["timestamp"] == "2025-09-24T21:59:59.999903747Z"
        assert book["timestamp_ns"] == "1758751199999903747"
        assert book["stats"] == {"total_orders": 147, "bid_levels": 61, "ask_levels": 52}
        assert book["bbo"] == {
            "bid": {"price": "65.4", "size": 1, "count": 1},
            "ask": {"price": "64.78", "size": 3, "count": 1},
        }
        assert len(book["levels"]["bids"]) == 61
        assert len(book["levels"]["asks"]) == 52
        assert book["partial"] is True
        assert book["anomalies"] == {"unknown_cancel": 1224, "unknown_modify": 216, "crossed": 172}

    def test_the_whole_book_of_esm4(self, esm4):
        [book] = objects(run(esm4, "--json", "--depth", 1))
        assert book["partial"] is False
        assert book["anomalies"] == {}
        assert book["stats"]["total_orders"] == 13_598

    def test_every_level_of_every_book(self, sample, sample_json):
        reference = ReferenceBooks()
        reference.apply(mbo_of(sample))
        shown = objects(sample_json)
        assert [book["symbol"] for book in shown] == ["AAPL", "MSFT", "GOOG", "AMZN", "TSLA"]
        for book, expected in zip(shown, reference.books.values(), strict=True):
            for side, levels in (("bids", b"B"), ("asks", b"A")):
                assert [
                    (round(float(level["price"]) * 1e9), level["size"], level["count"])
                    for level in book["levels"][side]
                ] == [
                    (price, level.size, len(level.queue))
                    for price in expected.prices(levels)
                    for level in [expected.levels[levels][price]]
                ]

    def test_as_records_it_is_one_of_mbp_10(self, clx5):
        [record] = decoded(run(clx5, said=PARTIAL))
        assert (record["bid_px_00"], record["ask_ct_00"]) == (65_400_000_000, 1)
        [row] = csv.DictReader(io.StringIO(run(clx5, "-C", "-p", "-s", said=PARTIAL).decode()))
        assert (row["bid_px_00"], row["symbol"]) == ("65.400000000", "CLX5")
        [record] = decoded(run(clx5, "--depth", 1, said=PARTIAL))
        assert record.dtype == MBP1

    def test_symbols_and_ends(self, sample):
        end = int(sample["ts_recv"][9_000])
        whole = objects(run(SAMPLE, "-J", "--end", end))
        some = objects(run(SAMPLE, "-J", "--end", end, "--symbols", "MSFT,TSLA"))
        assert some == [book for book in whole if book["symbol"] in {"MSFT", "TSLA"}]
        assert all(int(book["timestamp_ns"]) < end for book in whole)

    def test_of_stdin_and_of_several_files(self, tmp_path, sample, sample_json):
        assert run("-", "-J", stdin=SAMPLE.read_bytes()) == sample_json
        day = int(sample["ts_recv"][9_000])
        for name, option in (("a.dbn", "--end"), ("b.dbn", "--start")):
            output_of("replay-dbn", SAMPLE, option, day, "-o", tmp_path / name)
        assert run(tmp_path / "b.dbn", tmp_path / "a.dbn", "-J") == sample_json

    def test_a_limit_is_of_snapshots(self):
        assert len(objects(run(SAMPLE, "-J", "-l", 2))) == 2


class TestWholeEvents:
    """What has begun and not ended is not in the picture."""

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        records = streams.mbo(12)
        records["action"], records["instrument_id"], records["side"] = b"A", 1, b"B"
        records["flags"] = [F_LAST if at in {3, 8} else 0 for at in range(12)]
        path = tmp_path / "f.dbn"
        path.write_bytes(streams.header() + bytes(encode_records(records)))
        return path

    def orders(self, output: bytes) -> int:
        [book] = objects(output)
        return book["stats"]["total_orders"]

    def test_at_the_end_of_the_stream(self, path):
        said = "f.dbn: ends within an event: its last 3 records are in no book"
        assert self.orders(run(path, "-J", said=said)) == 9

    @pytest.mark.parametrize(("at", "orders"), [(3, 4), (7, 4), (8, 9), (11, 9)])
    def test_at_a_time(self, path, at, orders):
        ts_ns = streams.START + at * 1_000_000
        assert self.orders(run(path, "-J", "--at", ts_ns)) == orders
        assert self.orders(run(path, "-J", "--end", ts_ns + 1)) == orders

    def test_in_intervals(self, path):
        said = "its last 3 records are in no book"
        shown = objects(run(path, "-J", "--emit", "5ms", said=said))
        assert [book["stats"]["total_orders"] for book in shown] == [4, 9]
        times = [int(book["timestamp_ns"]) - streams.START for book in shown]
        assert times == [5_000_000, 10_000_000]


class TestEvents:
    def test_text_is_what_databento_makes_of_it(self, clx5):
        data = run(clx5, "--emit", "event", said=PARTIAL)
        for letter, encoding in (("-J", "json"), ("-C", "csv")):
            text = io.BytesIO()
            transcoder = dbn.Transcoder(
                text, dbn.Encoding(encoding), dbn.Compression("none"), pretty_px=False,
                pretty_ts=False, map_symbols=False,
            )  # fmt: skip
            transcoder.write(data)
            transcoder.flush()
            assert run(clx5, "--emit", "event", letter, said=PARTIAL) == text.getvalue()

    def test_files_of_every_format(self, esm4, tmp_path):
        wanted = decoded(run(esm4, "--emit", "event"))
        for name in ("f.dbn", "f.dbn.zst", "f.parquet", "f.arrow"):
            assert run(esm4, "--emit", "event", "-o", tmp_path / name) == b""
        assert np.array_equal(decoded((tmp_path / "f.dbn").read_bytes()), wanted)
        assert np.array_equal(decoded((tmp_path / "f.dbn.zst").read_bytes()), wanted)
        for table in (
            pyarrow.parquet.read_table(tmp_path / "f.parquet"),
            pyarrow.ipc.open_file(tmp_path / "f.arrow").read_all(),
        ):
            for level in ("bid_px_00", "bid_px_09"):
                prices = wanted[level].tolist()
                assert table[level].to_pylist() == [
                    None if price == UNDEF_PRICE else Decimal(price).scaleb(-9) for price in prices
                ]

    def test_depth_is_of_one_of_two_schemas(self, esm4):
        assert decoded(run(esm4, "--emit", "event")).dtype == MBP10
        best = decoded(run(esm4, "--emit", "event", "--depth", 1))
        assert best.dtype == MBP1
        run(esm4, "--emit", "event", "--depth", 5, status=2, said="records show 10 levels")

    def test_what_is_before_the_start_builds_the_books(self, sample_events):
        whole = decoded(sample_events)
        start, end = int(whole["ts_recv"][5_000]), int(whole["ts_recv"][9_000])
        part = decoded(run(SAMPLE, "--emit", "event", "--start", start, "--end", end))
        assert np.array_equal(part, whole[(whole["ts_recv"] >= start) & (whole["ts_recv"] < end)])

    def test_twice_it_is_the_same(self, sample_events):
        assert run("-", "--emit", "event", stdin=SAMPLE.read_bytes()) == sample_events

    def test_records_come_as_soon_as_theirs_are_there(self, sample):
        child = ChildProcess(
            [*MDTOOL, "book", "-", "--emit", "event", "-J"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with child, child.stdin, child.stdout:
            child.stdin.write(streams.header() + bytes(encode_records(sample[:100])))
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["action"] == "R"

    def test_a_reader_that_goes_ends_it_quietly(self):
        command = f"{sys.executable} -m mdtool book {SAMPLE} --emit event -J | head -n 1"
        ended = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, check=True
        )
        assert ended.stderr == b""
        assert len(ended.stdout.splitlines()) == 1


class TestIntervals:
    def test_each_is_the_book_at_its_end(self, sample):
        shown = objects(run(SAMPLE, "--emit", "5s", "-J", "--symbols", "GOOG"))
        ends = [int(book["timestamp_ns"]) for book in shown]
        assert len(ends) > 3
        assert all(end % (5 * 10**9) == 0 for end in ends)
        for end, book in zip(ends[:3], shown, strict=False):
            [then] = objects(run(SAMPLE, "--end", end, "-J", "--symbols", "GOOG"))
            assert book["levels"] == then["levels"]

    def test_as_records(self):
        rows = decoded(run(SAMPLE, "--emit", "5s", "--symbols", "GOOG"))
        assert (rows["ts_recv"] % (5 * 10**9) == 0).all()
        assert (rows["ts_event"] < rows["ts_recv"]).all()
        assert set(rows["action"]) == {b"N"}

    def test_from_the_start_on(self):
        whole = objects(run(SAMPLE, "--emit", "1s", "-J"))
        at = int(whole[30]["timestamp_ns"])
        later = objects(run(SAMPLE, "--emit", "1s", "-J", "--start", at))
        assert later == [book for book in whole if int(book["timestamp_ns"]) > at]


class TestCheckpoints:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return Path(shutil.copy(SAMPLE, tmp_path / "day.dbn.zst"))

    def test_a_later_moment_is_entered_there(self, path, sample, sample_json):
        at = sample["ts_recv"][16_000]
        before = run(path, "--at", at, "-J")
        assert run(path, "--checkpoint-every", 5_000, "-J") == sample_json
        assert path.with_name("day.dbn.zst.mdtool-book").exists()
        assert run(path, "--at", at, "-J") == before
        some = run(path, "--at", at, "-J", "--symbols", "TSLA")
        assert objects(some) == [book for book in objects(before) if book["symbol"] == "TSLA"]

    def test_a_stale_one_is_ignored_with_a_warning(self, path, sample):
        at = sample["ts_recv"][16_000]
        run(path, "--checkpoint-every", 5_000, "-J")
        os.utime(path)
        said = "ignored, because it is of another file, or of this one before it changed"
        assert run(path, "--at", at, "-J", said=said) == run(SAMPLE, "--at", at, "-J")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-"], "for the whole of one file"),
            ([SAMPLE, "--symbols", "AAPL"], "for the whole of one file"),
            ([SAMPLE, SAMPLE], "for the whole of one file"),
            ([SAMPLE, "--emit", "event"], "goes with --emit final or INTERVAL"),
        ],
    )
    def test_it_is_for_whole_files(self, arguments, said):
        run(*arguments, "--checkpoint-every", 10, status=2, said=said)


class TestVerify:
    def test_a_file_in_order(self, esm4):
        report = json.loads(run("verify", esm4, "--json"))
        assert (report["ok"], report["findings"], report["partial"]) == (True, [], [])
        assert report["records"] == 13_796
        assert b"nothing found" in run("verify", SAMPLE)

    def test_what_is_found_makes_it_fail(self, clx5):
        said = "CLX5_mbo.dbn: found crossed, unknown_cancel, unknown_modify"
        report = json.loads(run("verify", clx5, "--json", status=1, said=said))
        assert not report["ok"]
        assert report["partial"] == ["CLX5"]
        assert [(found["kind"], found["count"]) for found in report["findings"]] == [
            ("unknown_cancel", 1224),
            ("unknown_modify", 216),
            ("crossed", 172),
        ]
        table = run("verify", clx5, status=1, said=said).decode()
        assert "1,224" in table
        assert "2025-09-24T19:30:00.001551547Z" in table

    def test_kinds_can_be_allowed(self, clx5):
        report = json.loads(run("verify", clx5, "-J", "--allow", "unknown", "--allow", "crossed"))
        assert report["ok"]
        assert all(found["allowed"] for found in report["findings"])
        said = "found crossed, unknown_modify"
        run("verify", clx5, "--allow", "unknown-cancel", status=1, said=said)
        run("verify", clx5, "--allow", "typo", status=2, said="choose from unknown_cancel, ")

    def test_a_gap(self, tmp_path, sample):
        path = tmp_path / "f.dbn"
        rest = sample[sample["sequence"] != sample["sequence"][9_000]]
        path.write_bytes(streams.header() + bytes(encode_records(rest)))
        report = json.loads(run("verify", path, "-J", status=1, said="sequence_gap"))
        [gap] = [found for found in report["findings"] if found["kind"] == "sequence_gap"]
        assert (gap["channel_id"], gap["count"]) == (0, 1)

    def test_jumps_of_part_of_a_channel_are_gaps_if_asked(self, esm4):
        run("verify", esm4, "--all-jumps", status=1, said="found sequence_gap")

    def test_some_symbols(self):
        assert json.loads(run("verify", SAMPLE, "-J", "--symbols", "AAPL"))["books"] == 1
        run("verify", SAMPLE, "--symbols", "NONE", status=1, said="has no MBO records to verify")

    def test_a_cut_file_is_reported_before_it_fails(self, tmp_path, esm4):
        path = tmp_path / "cut.dbn"
        path.write_bytes(output_of("replay-dbn", esm4)[:-10])
        output = run("verify", path, "-J", status=1, said="ends inside a record that begins at")
        assert json.loads(output)["records"] == 13_795

    def test_a_file_of_that_name(self, tmp_path, monkeypatch, sample_json):
        monkeypatch.chdir(tmp_path)
        shutil.copy(SAMPLE, "verify")
        assert run("./verify", "-J") == sample_json
        assert b"nothing found" in run("verify", "verify")


class TestDiff:
    @pytest.fixture
    def ours(self, tmp_path, sample_events) -> Path:
        (tmp_path / "ours.dbn").write_bytes(sample_events)
        return tmp_path / "ours.dbn"

    def test_equal_streams(self, ours, sample_events):
        n = len(decoded(sample_events))
        stream = zstandard.compress(sample_events)
        assert run("diff", ours, "-", stdin=stream) == f"equal: {n:,} records\n".encode()

    def test_the_first_divergence(self, ours, tmp_path, sample_events):
        theirs = decoded(sample_events).copy()
        theirs["bid_px_03"][500] += 10_000_000
        theirs["price"][600] = 0
        path = tmp_path / "theirs.dbn"
        path.write_bytes(streams.header("mbp-10") + bytes(encode_records(theirs)))
        said = f"{ours} and {path} differ at record 500"
        report = json.loads(run("diff", ours, path, "-J", status=1, said=said))
        assert (report["equal_records"], report["record"]) == (500, 500)
        [field] = [field for field in report["fields"] if field["differs"]]
        assert field["field"] == "bid_px_03"
        assert float(field["theirs"]) - float(field["ours"]) == pytest.approx(0.01)
        table = run("diff", ours, path, status=1, said=said).decode()
        assert "bid_px_03" in table
        assert "bid_px_04" not in table
        said = "differ at record 600"
        run("diff", ours, path, "--ignore", "bid_px_03", status=1, said=said)

    def test_one_that_ends_before(self, ours, tmp_path):
        run(SAMPLE, "--emit", "event", "-l", 700, "-o", tmp_path / "short.dbn")
        report = json.loads(
            run("diff", tmp_path / "short.dbn", ours, "-J", status=1, said="record 700")
        )
        assert all(field["ours"] is None for field in report["fields"])
        empty = tmp_path / "empty.dbn"
        empty.write_bytes(streams.header("mbp-10"))
        run("diff", empty, ours, status=1, said="differ at record 0")
        run("diff", ours, empty, status=1, said="differ at record 0")

    def test_what_cannot_be_compared(self, ours, tmp_path):
        run(SAMPLE, "--emit", "event", "--depth", 1, "-o", tmp_path / "best.dbn")
        run("diff", ours, tmp_path / "best.dbn", status=1, said="is mbp-10, ")
        said = "is mbo, neither mbp-10 nor mbp-1; mdtool book FILE --emit event makes mbp-10"
        run("diff", ours, SAMPLE, status=1, said=said)
        run("diff", "-", "-", status=2, said="standard input can be read once")
        run("diff", ours, ours, "--ignore", "ask_px", status=2, said="did you mean 'ask_px_0")
        run("diff", ours, status=2, said="Missing argument 'THEIRS'")


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "status", "said"),
        [
            (["no.dbn"], 1, "no.dbn: no such file"),
            ([Path(__file__).parent], 1, "without DBN files"),
            ([__file__], 1, "is not a DBN stream"),
            ([SAMPLE, "--at", "noon"], 2, "'noon' is not a time"),
            ([SAMPLE, "--emit", "often"], 2, "--emit often: give final, event, or an interval"),
            ([SAMPLE, "--emit", "0s"], 2, "--emit 0s: give final, event, or an interval"),
            ([SAMPLE, "--at", "2025-01-02", "--emit", "1s"], 2, "--at is a moment of its own"),
            ([SAMPLE, "--depth", "0"], 2, "'--depth'"),
            ([SAMPLE, "--depth", "7", "-C"], 2, "--depth 7: records show 10 levels"),
            ([SAMPLE, "--orders", "-C"], 2, "--orders is for the --json of"),
            ([SAMPLE, "--orders", "-J", "--emit", "event"], 2, "--orders is for the --json of"),
            ([SAMPLE, "--at", "2020-01-01"], 1, "no event had ended by 2020-01-01"),
            ([SAMPLE, "--start", "2025-01-02", "--end", "2025-01-02"], 2, "is not before --end"),
            ([SAMPLE, "-J", "-C"], 2, "choose one of --json and --csv"),
        ],
    )
    def test_one_clear_line(self, arguments, status, said):
        assert run(*arguments, status=status, said=said) == b"" or status == 1

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "f").touch()
        run(tmp_path / "f", status=1, said="f: is empty")

    def test_no_orders(self, tmp_path):
        path = tmp_path / "f.dbn"
        path.write_bytes(streams.header("trades") + bytes(encode_records(streams.trades(3))))
        for command in ([], ["verify"]):
            run(*command, path, status=1, said="holds trades, from which mbo cannot be taken")

    def test_orders_of_which_there_are_none(self, tmp_path):
        path = tmp_path / "f.dbn"
        path.write_bytes(streams.header())
        run(path, "-J", status=1, said="f.dbn: no event ends in it, so that there is no book")
        said = "f.dbn: no MBO records, so that there is no book"
        assert len(run(path, "--emit", "event", "-C", said=said).splitlines()) == 1

    def test_an_unknown_symbol(self):
        said = "no records of AAPX; there are AAPL, AMZN, GOOG, MSFT, TSLA"
        assert run(SAMPLE, "--symbols", "AAPX", "-J", status=1, said=said) == b""

    @pytest.mark.parametrize("emit", ["final", "1s", "event"])
    def test_a_cut_file_shows_all_before(self, tmp_path, emit, sample):
        whole, cut = tmp_path / "whole.dbn", tmp_path / "cut.dbn"
        data = streams.header() + bytes(encode_records(sample))
        whole.write_bytes(data[: -1_000 * 56])
        cut.write_bytes(data[: -1_000 * 56 + 20])
        said = f"cut.dbn: ends inside a record that begins at byte {len(data) - 56_000}"
        output = run(cut, "-J", "--emit", emit, status=1, said=said)
        assert output == run(whole, "-J", "--emit", emit)

    def test_without_anything_it_tells_how(self):
        assert b"mdtool book [OPTIONS]" in run(status=2)


class TestOnATerminal:
    def test_a_ladder(self, clx5):
        lines = on_a_terminal(clx5, "--depth", 2)
        assert lines[0] == "CLX5  2025-09-24T21:59:59.999903747Z"
        assert lines[3].split() == ["1", "1", "65.40", "64.78", "3", "1"]
        assert lines[5] == "147 orders, 61 bid and 52 ask levels"
        assert lines[6] == "partial: orders from before its stream, or lost, are not in it"
        assert lines[7] == "anomalies: 1,224 unknown_cancel, 216 unknown_modify, 172 crossed"

    def test_a_row_for_each_of_many(self):
        lines = on_a_terminal(SAMPLE)
        assert lines[0].split()[:3] == ["symbol", "timestamp", "bid_sz"]
        assert [line.split()[0] for line in lines[1:]] == ["AAPL", "MSFT", "GOOG", "AMZN", "TSLA"]

    def test_rows_of_intervals(self):
        lines = on_a_terminal(SAMPLE, "--emit", "10s", "--symbols", "AAPL")
        assert [line.split()[0] for line in lines[1:]] == ["AAPL"] * (len(lines) - 1)


def test_help_names_the_subcommands():
    text = run("--help").decode()
    assert "verify" in text
    assert "diff" in text
    assert "Example: mdtool book" in text
    assert "--allow" in run("verify", "--help").decode()
    assert "OURS" in run("diff", "--help").decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_before_there_is_anything_to_write_it_leaves_no_file(tmp_path, number):
    path = tmp_path / "out.dbn"
    with ChildProcess(
        [*MDTOOL, "book", str(SAMPLE), "--emit", "event", "-o", str(path)],
        stderr=subprocess.PIPE,
        env=without_kernels(tmp_path),
    ) as process:
        assert b"compiling kernels" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait() in {130, -number}
    assert not path.exists()


def without_kernels(folder: Path) -> dict[str, str]:
    """An environment in which kernels have to be compiled first."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)
    return environment


class TestBooksWithoutDepthRecords:
    @pytest.fixture
    def path(self, tmp_path):
        return files.write(
            tmp_path / "f.dbn",
            files.header({"AAPL": {1: 1}, "MSFT": {1: 2}}, "mbo"),
            files.order(1, files.MAY_1, "A", "B", 100, 1, 1),
            files.order(2, files.MAY_1 + 1, "F", "B", 100, 1, 2),
        )

    def test_are_named(self, path):
        said = "f.dbn: no record of MSFT: nothing was traded, and the best 10 levels did not change"
        assert len(run(path, "--emit", "event", "-C", said=said).splitlines()) == 2

    def test_from_a_time_on(self, path):
        start = str(files.MAY_1 + 1)
        said = f"f.dbn: no record of AAPL, MSFT from {start} on: nothing was traded"
        run(path, "--emit", "event", "-C", "--start", start, said=said)
