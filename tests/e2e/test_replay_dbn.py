"""`mdtool replay-dbn` as its users run it."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pyarrow.parquet
import pytest
import zstandard

from mdtool.core.records import trades_of
from mdtool.core.units import format_time
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.commands import MDTOOL, output_of
from tests.support.dbn_files import decoded
from tests.support.processes import ChildProcess

STYLE = re.compile(r"\x1b\[[\d;]*m")
FOUR_MILLION = 4_000_000


replay = functools.partial(output_of, "replay-dbn")


@pytest.fixture
def orders(tmp_path) -> Path:
    path = tmp_path / "orders.dbn"
    path.write_bytes(streams.header() + encode_records(streams.mbo(1000)))
    return path


def test_piped_it_is_dbn_and_the_same(orders):
    assert replay(orders) == orders.read_bytes()
    assert replay("-", stdin=orders.read_bytes()) == orders.read_bytes()
    compressed = zstandard.compress(orders.read_bytes())
    assert replay("-", "-D", stdin=compressed) == orders.read_bytes()


def test_csv_json_and_their_styles(orders):
    rows = list(csv.DictReader(io.StringIO(replay(orders, "-C", "-s", "-p", "-l", 3).decode())))
    assert [row["symbol"] for row in rows] == ["AAPL", "MSFT", "AAPL"]
    assert rows[0]["price"] == "100.000000000"
    assert rows[0]["ts_recv"] == format_time(streams.START)
    (line,) = replay(orders, "-J", "-l", 1, "-s").splitlines()
    record = json.loads(line)
    assert record["symbol"] == "AAPL"
    assert record["ts_recv"] == str(streams.START)
    assert record["price"] == "100000000000"


@pytest.mark.parametrize("name", ["f.dbn", "f.dbn.zst", "f.csv", "f.json", "f.parquet"])
def test_files_by_their_extension(orders, tmp_path, name):
    path = tmp_path / name
    assert replay(orders, "-o", path, "-l", 10) == b""
    if name == "f.csv":
        assert path.read_bytes() == replay(orders, "-C", "-l", 10)
    elif name == "f.json":
        assert path.read_bytes() == replay(orders, "-J", "-l", 10)
    elif name == "f.parquet":
        assert pyarrow.parquet.read_table(path)["sequence"].to_pylist() == list(range(10))
    else:
        assert np.array_equal(decoded(path.read_bytes()), streams.mbo(10))
    before = path.read_bytes()
    replay(orders, "-o", path, status=1, said=f"mdtool: {path}: exists already; -f replaces it\n")
    assert path.read_bytes() == before
    replay(orders, "-o", path, "-f", "-l", 9)
    assert path.read_bytes() != before


def test_a_file_may_be_replaced_by_what_is_replayed_of_it(orders):
    replay(orders, "-o", orders, "-f", "--symbols", "MSFT")
    assert len(decoded(orders.read_bytes())) == 500


def test_files_are_merged_by_time(tmp_path, orders):
    later = tmp_path / "later.dbn"
    later.write_bytes(streams.header() + encode_records(streams.mbo(1000, 500)))
    merged = decoded(replay(orders, later))
    both = np.concatenate([streams.mbo(1000), streams.mbo(1000, 500)])
    assert np.array_equal(merged, both[np.argsort(both["ts_recv"], kind="stable")])


def test_a_part_of_the_records(orders):
    start, end = format_time(streams.START + 10_000_000), str(streams.START + 20_000_000)
    part = decoded(replay(orders, "--start", start, "--end", end, "--symbols", "AAPL"))
    assert part["sequence"].tolist() == [10, 12, 14, 16, 18]


def test_trades_out_of_orders(orders):
    data = replay(orders, "--schema", "trades")
    assert str(dbn.Metadata.decode(data).schema) == "trades"
    assert np.array_equal(decoded(data), trades_of(streams.mbo(1000)))


def test_paced_it_gives_the_same_as_flat_out(orders):
    for clock in ("ts_recv", "ts_event"):
        assert replay(orders, "--speed", 5, "--clock", clock) == orders.read_bytes()


def test_paced_records_leave_when_they_are_due_and_not_when_a_buffer_is_full(tmp_path):
    path = tmp_path / "slow.dbn"
    path.write_bytes(streams.header() + encode_records(streams.mbo(2, step_ns=3600 * 10**9)))
    with ChildProcess(
        [*MDTOOL, "replay-dbn", str(path), "--speed", "1", "-J"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert json.loads(process.stdout.readline())["sequence"] == 0
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.stderr.read() == b""
        assert process.wait() == 130


def test_records_of_a_pipe_go_out_before_more_come(orders):
    with ChildProcess(
        [*MDTOOL, "replay-dbn", "-", "-C"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as process:
        process.stdin.write(streams.header())
        assert process.stdout.readline().startswith(b"ts_recv,")
        for first in range(3):
            process.stdin.write(encode_records(streams.mbo(1, first)))
            assert process.stdout.readline().endswith(b",%d\n" % first)
        process.stdin.close()
        assert process.wait() == 0


ENDINGS = [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]


@pytest.mark.parametrize(("number", "status"), ENDINGS)
def test_an_interrupted_file_is_complete_as_far_as_it_goes(tmp_path, number, status):
    path = tmp_path / "out.parquet"
    with ChildProcess(
        [*MDTOOL, "replay-dbn", "-", "-o", str(path)], stdin=subprocess.PIPE, bufsize=0
    ) as process:
        process.stdin.write(streams.header() + encode_records(streams.mbo(200_000)))
        while not any(part.stat().st_size >= 1000 for part in tmp_path.iterdir()):
            os.sched_yield()
        process.send_signal(number)
        assert process.wait() == status
        process.stdin.close()
    assert pyarrow.parquet.read_table(path).num_rows > 100_000


@pytest.mark.parametrize(("number", "status"), ENDINGS)
@pytest.mark.parametrize("name", ["out.dbn", "out.csv"])
def test_an_interrupted_file_of_a_finite_input_is_not_written(tmp_path, name, number, status):
    source = tmp_path / "slow.dbn"
    source.write_bytes(streams.header() + encode_records(streams.mbo(9, step_ns=3600 * 10**9)))
    folder = tmp_path / "made"
    folder.mkdir()
    output = str(folder / name)
    with ChildProcess(
        [*MDTOOL, "replay-dbn", str(source), "--speed", "1", "-o", output],
        stderr=subprocess.PIPE,
    ) as process:
        while not any(folder.iterdir()):
            os.sched_yield()
        process.send_signal(number)
        _, errors = process.communicate()
        assert errors.endswith(f"{output}: not written, because the command did not end\n".encode())
        assert process.returncode == status
    assert list(folder.iterdir()) == []


def test_a_reader_that_has_enough_is_no_failure(orders):
    with ChildProcess(
        [*MDTOOL, "replay-dbn", str(orders), "--speed", "0.5", "-C"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline().startswith(b"ts_recv,")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


class TestOnATerminal:
    def run(self, *arguments: object) -> tuple[str, int]:
        """Run it with a terminal as stdout; return what is shown and its status."""
        ours, theirs = pty.openpty()
        shown = b""
        with ChildProcess(
            [*MDTOOL, "replay-dbn", *map(str, arguments)],
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        ) as process:
            os.close(theirs)
            # Linux reports the closed other end of a terminal as an error.
            with contextlib.suppress(OSError):
                while data := os.read(ours, 1 << 16):
                    shown += data
        os.close(ours)
        return STYLE.sub("", shown.decode().replace("\r\n", "\n")), process.returncode

    def test_records_are_a_table_as_wide_as_the_terminal(self, orders):
        shown, status = self.run(orders, "-l", 3)
        header, *rows = shown.splitlines()
        assert status == 0
        assert header.split() == [
            "symbol",
            "ts_recv",
            "action",
            "side",
            "price",
            "size",
            "order_id",
            "sequence",
        ]
        assert [row.split() for row in rows] == [
            ["AAPL", "2023-11-14T22:13:20Z", "T", "B", "100", "1", "0", "0"],
            ["MSFT", "2023-11-14T22:13:20.001000000Z", "A", "A", "101", "2", "1", "1"],
            ["AAPL", "2023-11-14T22:13:20.002000000Z", "A", "B", "102", "3", "2", "2"],
        ]
        assert len({len(row) for row in [header, *rows]}) == 1
        assert len(header) <= 80

    def test_what_is_not_there_is_not_a_number(self, tmp_path):
        records = streams.mbo(1)
        records["price"], records["size"] = 2**63 - 1, 2**32 - 1
        path = tmp_path / "f.dbn"
        path.write_bytes(streams.header() + encode_records(records))
        shown, _ = self.run(path)
        assert shown.splitlines()[1].split()[2:] == ["T", "B", "0", "0"]

    def test_text_is_text(self, orders):
        shown, _ = self.run(orders, "-l", 1, "-J")
        assert json.loads(shown)["sequence"] == 0

    def test_binary_is_refused(self, orders):
        shown, status = self.run(orders, "-D")
        assert status == 2
        assert shown == "mdtool: DBN is binary: pipe it, or name a file with -o\n"


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--start", "yesterday"], "'yesterday' is not a time"),
            (["--start", "2024-01-02", "--end", "2024-01-02"], "--start 2024-01-02 is not before"),
            (["--symbols", ","], "--symbols ',' names no symbol"),
            (["--schema", "trade"], "schema 'trade': does not exist; did you mean 'trades'?"),
            (["--clock", "ts_out"], "--clock ts_out: choose from ts_recv, ts_event"),
            (["--speed", "-1"], "--speed"),
            (["--speed", "nan"], "--speed"),
            (["--speed", "inf"], "--speed inf: give a number"),
            (["--limit", "0"], "--limit"),
            (["-J", "-C"], "choose one of --json and --csv"),
            (["--prices", "int"], "--prices: is for Parquet and Arrow"),
            (["-o", "f.parquet", "--prices", "text"], "--prices text: choose from decimal, "),
            (["-o", "out.txt"], "out.txt: name it .dbn, .dbn.zst, "),
        ],
    )
    def test_it_ends_with_2_and_one_line(self, orders, arguments, said):
        assert replay(orders, *arguments, status=2, said=said) == b""

    def test_no_file_at_all(self):
        replay(status=2, said="FILE")


class TestBadFiles:
    def test_one_that_is_cut_in_a_record(self, tmp_path):
        path = tmp_path / "f.dbn"
        data = (streams.header() + encode_records(streams.mbo(1000)))[:-20]
        path.write_bytes(data)
        offset = len(streams.header()) + 999 * 56
        said = f"mdtool: {path}: ends inside a record that begins at byte {offset}, after 999 whole"
        assert np.array_equal(decoded(replay(path, status=1, said=said)), streams.mbo(999))
        rows = replay("-", "-C", stdin=data, status=1, said="mdtool: stdin: ends inside a record")
        assert len(rows.splitlines()) == 1000

    def test_one_that_is_cut_and_compressed(self, tmp_path):
        path = tmp_path / "f.dbn.zst"
        path.write_bytes(zstandard.compress(streams.header() + encode_records(streams.mbo(9)))[:-2])
        replay(path, status=1, said=f"mdtool: {path}: ends inside")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is empty"),
            (b"symbol,price\nAAPL,1\n", "is not a DBN stream"),
            (bytes(99), "is not a DBN stream"),
        ],
    )
    def test_one_that_is_none(self, tmp_path, content, said):
        path = tmp_path / "f.dbn"
        path.write_bytes(content)
        assert replay(path, status=1, said=f"mdtool: {path}: ") == b""
        assert replay("-", stdin=content, status=1, said=said) == b""

    def test_no_such_file_and_a_directory(self, tmp_path):
        replay("none.dbn", status=1, said="mdtool: none.dbn: no such file\n")
        replay(tmp_path, status=1, said=f"mdtool: {tmp_path}: is a folder without DBN files")

    def test_an_output_is_not_begun_for_a_file_that_is_none(self, tmp_path):
        replay("none.dbn", "-o", tmp_path / "out.csv", status=1, said="no such file")
        assert not (tmp_path / "out.csv").exists()


def test_memory_stays_flat_in_the_length_of_a_file(tmp_path):
    path = tmp_path / "long.dbn"
    block = bytes(encode_records(streams.mbo(100_000)))
    with path.open("wb") as file:
        file.write(streams.header())
        for _ in range(FOUR_MILLION // 100_000):
            file.write(block)
    script = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *MDTOOL, "replay-dbn", str(path), "-C"],
        capture_output=True,
        check=True,
    )
    kilobytes = int(ended.stdout)
    assert kilobytes < 300_000


def test_real_files_as_databento_writes_them(real_data):
    path = real_data / "CLX5_mbo.dbn"
    assert replay(path, "-D") == path.read_bytes()
    text = io.BytesIO()
    transcoder = dbn.Transcoder(text, dbn.Encoding.CSV, dbn.Compression.NONE)
    transcoder.write(path.read_bytes())
    transcoder.flush()
    assert replay(path, "-C", "-s", "-p") == text.getvalue()


def test_a_closed_standard_output_is_said():
    ended = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *MDTOOL, "replay-dbn", "sample_data/trades.dbn.zst", "-C"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        "mdtool: standard output: is closed; redirect it, such as to /dev/null\n",
    )
