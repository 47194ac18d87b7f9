"""The text bench compares the command's bytes with databento_dbn's, and their CPU times."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdtool.bench import text
from mdtool.bench.recordings import write_recording
from mdtool.core.errors import CheckError
from mdtool.engine.simulate import Exchange


def test_figures_have_their_baselines():
    figures = text.measure(records=2_000, repeats=1, rounds=1)
    assert [figure.name for figure in figures] == [
        *(
            f"{schema}_{encoding}{style}"
            for schema in ("mbo", "trades")
            for encoding in ("csv", "json")
            for style in ("", "_pretty")
        ),
        *("merge_dbn", "parquet"),
    ]
    for figure in figures:
        assert figure.ratio == pytest.approx(figure.value / figure.baseline_value)


def test_other_bytes_are_an_error(tmp_path: Path):
    path = tmp_path / "f.dbn"
    write_recording(path, Exchange(seed=2).generate(1_000))
    text._check_same(path, "csv", ["-C"])
    with pytest.raises(CheckError, match="differs from what databento_dbn writes"):
        text._check_same(path, "json", ["-C"])
