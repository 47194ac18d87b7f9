"""The commands that sample_data/README.md gives write the sample files again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdtool.adapters.dbn_files import open_source
from tests.reference.book_check import BookCheck

SAMPLES = Path(__file__).parents[2] / "sample_data"
README = (SAMPLES / "README.md").read_text()
COMMANDS = {
    re.search(r"sample_data/(\S+)", line)[1]: shlex.split(line)
    for line in README.splitlines()
    if line.startswith("    mdtool simulate")
}


def records_of(path: Path) -> np.ndarray:
    with open_source(str(path)) as source:
        return np.concatenate([batch.records for batch in source])


def test_every_sample_has_its_command():
    assert sorted(COMMANDS) == sorted(path.name for path in SAMPLES.glob("*.dbn*"))


@pytest.mark.parametrize("name", COMMANDS)
def test_its_command_writes_the_sample_again(name, tmp_path):
    (tmp_path / "sample_data").mkdir()
    command = [sys.executable, "-m", "mdtool", *COMMANDS[name][1:]]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    again = tmp_path / "sample_data" / name
    assert records_of(again).tobytes() == records_of(SAMPLES / name).tobytes()
    with open_source(str(again)) as ours, open_source(str(SAMPLES / name)) as theirs:
        assert bytes(ours.metadata) == bytes(theirs.metadata)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_counts_right(name):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
    assert f"{len(records_of(SAMPLES / name)):,} records" in row


def test_the_sample_orders_make_a_sound_book():
    check = BookCheck()
    check.follow(records_of(SAMPLES / "mbo.dbn.zst"))
    assert not check.is_inside_event


def test_the_sample_trades_are_of_the_same_market():
    orders = records_of(SAMPLES / "mbo.dbn.zst")
    trades = records_of(SAMPLES / "trades.dbn.zst")
    traded = orders[orders["action"] == b"T"]
    for name in ("ts_event", "instrument_id", "price", "size", "sequence"):
        np.testing.assert_array_equal(trades[name][: len(traded)], traded[name])
