"""`bench kernels`: what it works on, and what it compares."""

from __future__ import annotations

import pytest

from mdtool.bench import kernels
from mdtool.core.errors import CheckError

NAMES = ("book", "bars", "vwap")


def test_the_work_is_the_same_each_time(monkeypatch):
    monkeypatch.setattr(kernels, "_TIMES", 1)
    first, second = kernels.work(2_000), kernels.work(2_000)
    assert tuple(first) == tuple(second) == NAMES
    digests = [digest for _, digest in first.values()]
    assert digests == [digest for _, digest in second.values()]
    assert len({*digests}) == len(NAMES)
    assert min(taken_s for taken_s, _ in first.values()) > 0


def test_kernels_for_any_cpu_are_compared_with_those_for_this_one(monkeypatch):
    taken_s = {"generic": 0.2, "native": 0.1}

    def apart(folder, records):
        return dict.fromkeys(NAMES, (taken_s[folder.name], "digest"))

    monkeypatch.setattr(kernels, "_apart", apart)
    figures = kernels.measure(1_000, rounds=2)
    assert [figure.name for figure in figures] == [f"kernels_{name}" for name in NAMES]
    for figure in figures:
        assert (figure.value, figure.baseline_value, figure.ratio) == (5_000, 10_000, 0.5)


def test_other_results_are_no_figure(monkeypatch):
    def apart(folder, records):
        return dict.fromkeys(NAMES, (1.0, folder.name))

    monkeypatch.setattr(kernels, "_apart", apart)
    with pytest.raises(CheckError, match="book: kernels for any CPU have other results"):
        kernels.measure(10)
