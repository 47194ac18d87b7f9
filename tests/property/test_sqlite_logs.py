"""A SQLite store whose log breaks off anywhere, as after a power failure, has whole steps."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdtool.adapters.stores import open_history, open_store
from tests.support.stores import NOON_NS, run, step

STEPS = 12


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory) -> Path:
    """A folder as a process leaves it that was killed: all steps are in the log."""
    folder = tmp_path_factory.mktemp("killed")
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(open_store(f"sqlite:///{folder}/trades.db"))
        first = 0
        for number in range(STEPS):
            trades = [(0, n + 1, 1, NOON_NS) for n in range(first, first + 10 * (number + 1))]
            first += len(trades)
            session = (1, 1, 1, 1, 1, first, NOON_NS, NOON_NS)
            store.write(
                step(
                    ["AAPL"],
                    run("stream", first - len(trades), trades),
                    sessions={0: session},
                    counts={"ticks": first},
                )
            )
        copy = tmp_path_factory.mktemp("copy")
        for name in ("trades.db", "trades.db-wal"):
            shutil.copy(folder / name, copy)
    return copy


def copied(folder: Path, log_bytes: int | None) -> str:
    """The URL of a copy whose log is no longer than that."""
    place = folder / "again"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("trades.db", "trades.db-wal"):
        shutil.copy(folder / name, place)
    if log_bytes is not None:
        with (place / "trades.db-wal").open("r+b") as log:
            log.truncate(log_bytes)
    return f"sqlite:///{place}/trades.db"


def test_readers_alone_find_all_that_was_written(left_behind):
    with open_history(copied(left_behind, None)) as history:
        assert history.symbols()[0].trade_count == 10 * STEPS * (STEPS + 1) // 2
        assert history.recount() == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, 1))
def test_a_log_that_breaks_off_ends_with_a_whole_step(left_behind, part):
    whole = (left_behind / "trades.db-wal").stat().st_size
    with open_store(copied(left_behind, int(part * whole))) as store:
        position = store.position("stream") or 0
        assert position in {5 * n * (n + 1) for n in range(STEPS + 1)}
        assert sum(each.trade_count for each in store.symbols()) == position
        assert store.recount() == []
        state = store.load(10, 0)
        assert state.counts.get("ticks", 0) == position
        assert sum(state.sessions["count"].tolist()) == position
        store.write(step(["AAPL"], run("stream", position, [(0, 1, 1, NOON_NS)])))
        assert store.position("stream") == position + 1
