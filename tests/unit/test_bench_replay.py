"""The replay bench measures whole commands beside the least that reading takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdtool.adapters.dbn_files import open_source
from mdtool.bench import replay
from mdtool.bench.processes import run_command, wall_times_s
from mdtool.bench.recordings import write_recording, zstd_pass
from mdtool.core.errors import MdtoolError
from mdtool.engine.simulate import Exchange
from tests.support.instruments import bare


def test_figures_have_their_baselines():
    figures = replay.measure(records=2_000, repeats=2, rounds=1)
    assert [figure.name for figure in figures] == ["replay_zstd", "replay_dbn"]
    for figure in figures:
        assert figure.ratio == pytest.approx(figure.value / figure.baseline_value)


@pytest.mark.parametrize("name", ["f.dbn", "f.dbn.zst"])
def test_a_recording_repeats_a_session_with_fresh_ids_and_later_times(tmp_path: Path, name):
    session = Exchange(["AAPL", "MSFT"], seed=2).generate(5_000)
    before = session.copy()
    n_records = write_recording(tmp_path / name, session, repeats=3)
    assert np.array_equal(session, before)
    with open_source(str(tmp_path / name)) as source:
        written = np.concatenate([*bare(source)])
    assert len(written) == n_records == 3 * (2 + len(session))
    first, again, _ = np.split(written, 3)
    assert first["action"][:2].tolist() == [b"R", b"R"]
    assert set(first["instrument_id"][:2]) == set(session["instrument_id"])
    assert np.array_equal(first[2:], session)
    assert (np.diff(written["ts_recv"].view(np.int64)) >= 0).all()
    assert np.array_equal(again["price"], first["price"])
    assert not np.isin(again["order_id"], first["order_id"]).any()


def test_a_pass_goes_through_all_of_a_file(tmp_path: Path):
    stream = Exchange(seed=2).generate(5_000)
    n_records = write_recording(tmp_path / "f.dbn", stream)
    write_recording(tmp_path / "f.dbn.zst", stream)
    assert zstd_pass(tmp_path / "f.dbn.zst") == (tmp_path / "f.dbn").stat().st_size
    assert replay._decode(tmp_path / "f.dbn") == n_records + 1, "the metadata is one too"


def test_a_command_that_fails_is_an_error():
    with pytest.raises(MdtoolError, match=r"replay-dbn none\.dbn: mdtool: none\.dbn: no such file"):
        run_command("replay-dbn", "none.dbn")


def test_ways_take_turns():
    taken = []
    times_s = wall_times_s(3, lambda: taken.append("a"), lambda: taken.append("b"))
    assert taken == ["a", "b"] * 3
    assert all(time_s >= 0 for time_s in times_s)
