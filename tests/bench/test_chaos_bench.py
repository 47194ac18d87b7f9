"""The bench of killed services, for a moment: nothing is lost, and nothing counts twice."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from mdtool.bench import chaos
from mdtool.bench.chaos import Plan, run_chaos, victims
from mdtool.cli.bench import app
from mdtool.core.errors import UsageError
from tests.support.postgres_servers import postgres_server

TICKS_PER_S = 5_000
SERVICES = ("serve-tcp", "aggregate", "vwap", "gateway")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/mdtool.db"


def assert_exact(figures, kills):
    values = {figure.name.replace("_one_process", ""): figure.value for figure in figures}
    assert values.pop("chaos_ticks") > 0
    assert values == {
        "chaos_kills": kills,
        "chaos_lost": 0,
        "chaos_double": 0,
        "chaos_wrong": 0,
    }


@pytest.mark.slow
async def test_killed_services_lose_nothing(url):
    plan, told = Plan(kills=4, ticks_per_s=TICKS_PER_S), []
    assert_exact(await run_chaos(plan, url, told.append), 4)
    assert [text.split(";")[0] for text in told[:4]] == [
        f"killed {number} of 4 times, {victim.name} last"
        for number, victim in enumerate(victims(plan, SERVICES), 1)
    ]


async def test_a_killed_process_of_all_services_loses_nothing(url):
    assert_exact(await run_chaos(Plan(3, TICKS_PER_S, is_one_process=True), url), 3)


@pytest.mark.slow
async def test_a_plain_client_loses_nothing_as_long_as_serve_tcp_lives(url):
    plan = Plan(3, TICKS_PER_S, spared=frozenset({"serve-tcp"}), is_plain=True)
    assert_exact(await run_chaos(plan, url), 3)


@pytest.mark.slow
async def test_nothing_is_lost_in_postgresql_though_it_is_killed_too():
    with postgres_server() as server:

        def kill_server_too(_text):
            server.restart()

        url = server.url(server.create_database())
        assert_exact(await run_chaos(Plan(2, TICKS_PER_S), url, kill_server_too), 2)


def test_how_often_and_the_seed_are_options_of_this_bench_alone(monkeypatch):
    asked = []

    async def measure(kills=chaos.KILLS, seed=0, show=None):
        asked.append((kills, seed))
        return []

    monkeypatch.setattr(chaos, "measure", measure)
    for options in ([], ["--kills", "7", "--seed", "9"]):
        ended = CliRunner().invoke(app, ["chaos", *options])
        assert ended.exit_code == 0
        assert f"chaos: --seed {asked[-1][1]}\n" in ended.stderr
    assert asked == [(chaos.KILLS, asked[0][1]), (7, 9)]
    for option in ("--kills", "--seed"):
        refused = CliRunner().invoke(app, ["memory", option, "7"])
        assert isinstance(refused.exception, UsageError)
