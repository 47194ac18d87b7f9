"""The public Python API."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import mdtool
from mdtool.core.errors import CorruptStreamError, InputError, UsageError
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support import recordings
from tests.unit.test_cli_app import HEAVY

PROBE = "import mdtool, sys; mdtool.__version__; print(*sys.modules)"


def test_importing_it_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert not {"numpy", "mdtool.api", *HEAVY} & set(done.stdout.split())


def test_it_exports_what_it_documents():
    assert sorted(dir(mdtool)) == sorted(mdtool.__all__)
    for name in mdtool.__all__:
        assert getattr(mdtool, name).__doc__
    with pytest.raises(AttributeError, match="engine_of_all"):
        _ = mdtool.engine_of_all


@pytest.fixture
def orders(tmp_path):
    """A file of simulated orders, and its records."""
    path = tmp_path / "orders.dbn"
    return path, recordings.record(path, 5_000)


def test_read_gives_every_record_with_its_symbol(orders):
    path, records = orders
    batches = [*mdtool.read(path)]
    joined = np.concatenate([batch.records for batch in batches])
    assert joined.tobytes() == records.tobytes()
    for batch in batches:
        assert len(batch) == len(batch.records) == len(batch.symbols)
        by_symbol = {*zip(batch.records["instrument_id"].tolist(), batch.symbols, strict=True)}
        assert len(by_symbol) == len({id_ for id_, _ in by_symbol}) == len({*batch.symbols})


def test_read_leaves_out_what_a_live_stream_says_about_itself(tmp_path):
    path = tmp_path / "live.dbn"
    mapped = bytes(streams.mapping(1, "LIVE"))
    parts = [streams.header("mbo"), mapped, bytes(encode_records(streams.mbo(4, 0)))]
    path.write_bytes(b"".join(parts))
    batches = [*mdtool.read(path, symbols="LIVE")]
    assert [batch.records["sequence"].tolist() for batch in batches] == [[0, 2]]


def test_damage_is_told_after_everything_before_it(orders):
    path, records = orders
    path.write_bytes(path.read_bytes()[:-7])
    seen = []
    with pytest.raises(CorruptStreamError):
        seen.extend(len(batch) for batch in mdtool.read(path))
    assert sum(seen) == len(records) - 1


def test_files_are_opened_at_once(tmp_path):
    for function in (mdtool.read, mdtool.bars, mdtool.book):
        with pytest.raises(InputError):
            function(tmp_path / "nowhere.dbn")


def test_bars_of_no_trades_are_an_empty_batch(orders):
    path, records = orders
    bars = mdtool.bars(path, end=int(records["ts_recv"][0]))
    assert len(bars) == 0
    assert bars.to_arrow().num_rows == 0
    assert {"open", "close", "symbol"} <= {*bars.to_arrow().schema.names}


def test_bars_need_trades(tmp_path):
    path = tmp_path / "statistics.dbn"
    path.write_bytes(streams.header("statistics"))
    with pytest.raises(InputError, match="is statistics, which has no trades"):
        mdtool.bars(path)


def test_snapshots_are_those_of_one_pass(orders):
    path, records = orders
    instruments = {
        int(id_): symbol
        for batch in mdtool.read(path)
        for id_, symbol in zip(batch.records["instrument_id"], batch.symbols, strict=True)
    }
    wanted = recordings.pictures(records, instruments, 3)
    snapshots = {snapshot.symbol: snapshot for snapshot in mdtool.book(path, depth=3)}
    assert snapshots.keys() == wanted.keys()
    for symbol, snapshot in snapshots.items():
        stats = wanted[symbol]["stats"]
        assert snapshot.total_orders == stats["total_orders"]
        assert snapshot.bids["size"].tolist() == [
            level["size"] for level in wanted[symbol]["levels"]["bids"]
        ]
        assert snapshot.to_arrow().num_rows == len(snapshot.bids) + len(snapshot.asks)


@pytest.mark.parametrize(
    "arguments",
    [
        {"at": 10**18, "every": "1s"},
        {"depth": 0},
        {"every": "often"},
        {"start": "soon"},
        {"every": "1s", "at": 1},
    ],
)
def test_arguments_without_a_meaning_are_usage_errors(orders, arguments):
    with pytest.raises(UsageError):
        mdtool.book(orders[0], **arguments)


def test_a_range_must_not_be_empty(orders):
    with pytest.raises(UsageError, match="start: 1970-01-02 is not before end 1970-01-01"):
        mdtool.read(orders[0], start="1970-01-02", end="1970-01-01")
