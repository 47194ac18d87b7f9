"""The bench of a long load, for a moment: nothing is lost, and growth is what it says."""

from __future__ import annotations

import math

import pytest
from typer.testing import CliRunner

from mdtool.bench import soak
from mdtool.cli.bench import app
from mdtool.core.errors import UsageError


@pytest.mark.slow
async def test_nothing_is_lost_and_every_service_is_looked_at():
    told = []
    figures = {each.name: each.value for each in await soak.measure(0.2, show=told.append)}
    assert figures["soak_ticks"] > 0
    assert figures["soak_slow_clients"] >= soak.SLOW_CLIENTS
    assert [figures[f"soak_{kind}"] for kind in ("lost", "double", "wrong")] == [0, 0, 0]
    for service in ("serve-tcp", "aggregate", "vwap", "gateway"):
        assert figures[f"soak_{service}_at_last"] > 0
        assert all(f"soak_{service}_{kind}" in figures for kind in soak._KINDS)
    assert "of 0.2 minutes" in told[0]


def test_the_slope_is_that_of_every_process_from_a_height_of_its_own():
    assert soak._slope([[(0, 5), (10, 25)], [(20, 1), (30, 21), (40, 41)]]) == pytest.approx(2)
    assert soak._slope([[(0, 7), (1, 7)], [(5, 3)]]) == 0
    assert math.isnan(soak._slope([[(0, 7)], []]))


@pytest.mark.parametrize(
    ("option", "benches"),
    [("--minutes", "dashboard and soak"), ("--kills", "chaos"), ("--seed", "chaos and soak")],
)
def test_options_of_other_benches_are_rejected(option, benches):
    ended = CliRunner().invoke(app, ["serialization", option, "1"])
    assert isinstance(ended.exception, UsageError)
    assert str(ended.exception) == f"{option}: is for `bench {benches}` only"
