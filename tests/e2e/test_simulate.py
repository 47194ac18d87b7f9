"""`mdtool simulate` as its users run it."""

from __future__ import annotations

import functools
import json
import shlex
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from mdtool.core.dtypes import MBO
from tests.reference.book_check import BookCheck
from tests.support.commands import MDTOOL, completed
from tests.support.dbn_files import decoded
from tests.support.processes import ChildProcess

START = "2025-06-02T13:30:00Z"
START_NS = 1_748_871_000 * 10**9


simulate = functools.partial(completed, "simulate")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a pipeline in which `mdtool` is this one, and fail where any part of it fails."""
    mdtool = f'mdtool() {{ {shlex.join(MDTOOL)} "$@"; }}; set -o pipefail; '
    return subprocess.run(
        ["bash", "-c", mdtool + command], capture_output=True, text=True, check=False, timeout=200
    )


def test_piped_it_is_dbn_and_the_same_each_time():
    first, again = simulate("--limit", "3000"), simulate("--limit", "3000")
    assert first.returncode == 0
    assert first.stdout == again.stdout
    records = decoded(first.stdout)
    assert records.dtype == MBO
    assert len(records) == 3000
    BookCheck().follow(records)
    assert simulate("--limit", "3000", "--seed", "1").stdout != first.stdout


def test_options_reach_the_exchange():
    options = f"--symbols ABC,XYZ --rate 100 --start {START} --duration 20s --seed 3".split()
    records = decoded(simulate(*options).stdout)
    assert set(records["instrument_id"]) == {1, 2}
    assert records["ts_recv"][0] == START_NS
    assert START_NS + 18 * 10**9 < records["ts_recv"][-1] < START_NS + 20 * 10**9
    events = np.count_nonzero(records["flags"] & 128)
    assert 1700 < events < 2300


def test_json_with_symbols():
    result = simulate("--schema", "mbp-1", "--limit", "2", "-J", "-s", "--symbols", "ABC")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["symbol"] for line in lines] == ["ABC", "ABC"]
    assert lines[0]["levels"][0]["bid_sz"] > 0


def test_a_market_may_begin_now():
    before = time.time_ns()
    records = decoded(simulate("--start", "now", "--limit", "1").stdout)
    assert before <= records["ts_recv"][0] <= time.time_ns()


def test_paced_it_writes_the_same_records():
    options = ["--duration", "1s", "--schema", "trades", "-C"]
    assert simulate(*options, "--speed", "50").stdout == simulate(*options).stdout


def test_head_ends_it_quietly():
    result = shell("mdtool simulate --json | head -n 1")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["action"] == "R"
    assert "mdtool:" not in result.stderr.replace("mdtool: compiling kernels", "")


def test_it_feeds_aggregate():
    result = shell("mdtool simulate --duration 3s | mdtool aggregate - --interval 1s --csv | head")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 10


def test_an_interrupt_ends_it_at_a_whole_record():
    with ChildProcess(
        [*MDTOOL, "simulate", "--speed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        first = b""
        while len(first) < 10_000:
            first += process.stdout.read(10_000)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert len(decoded(first + rest)) > 0


@pytest.mark.parametrize("name", ["day.dbn", "day.dbn.zst", "day.csv", "day.parquet"])
def test_it_writes_files(name, tmp_path):
    path: Path = tmp_path / name
    assert simulate("--limit", "100", "-o", str(path)).returncode == 0
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--schema mbp-10", "--schema mbp-10: choose from mbo, trades, mbp-1"),
        ("--rate 0", "rate 0"),
        ("--rate nan", "rate nan"),
        ("--speed inf", "--speed inf"),
        ("--speed nan", "--speed"),
        ("--speed -1", "--speed"),
        ("--seed -1", "seed -1"),
        ("--symbols A,,B", "'' is not a symbol"),
        ("--symbols A,A", "given twice"),
        ("--start yesterday", "'yesterday' is not a time"),
        ("--start 1960-01-01", "start"),
        ("--duration 5", "'5' is not a duration"),
        ("-o endless.dbn", "give --limit or --duration"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = simulate(*options.split())
    assert result.returncode == 2
    assert result.stdout == b""
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr.decode()
    assert list(tmp_path.iterdir()) == []
