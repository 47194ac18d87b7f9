"""The benches of the gateway, run for a moment: what they measure is there, whatever it is."""

from __future__ import annotations

from mdtool.bench import auth, fanout, history, latency, outage, overload, requests, trickle


async def test_rest_is_measured_against_a_bare_handler():
    figures = await requests.measure_rest(rounds=2, round_s=0.1)
    names = ["rest_requests", "rest_workers", "rest_workers_cpu"]
    assert [figure.name for figure in figures] == names
    for figure in figures:
        assert figure.value > 0
        assert figure.baseline_value > 0
        assert figure.ratio > 0
    assert figures[-1].better == "lower"


async def test_a_page_of_trades_is_measured_against_a_blocking_handler():
    newest, deep = await history.measure(trades=10_000, deep_page=20, rounds=1)
    assert [newest.name, deep.name] == ["history_page", "history_page_20"]
    for figure in (newest, deep):
        assert figure.value > 0
        assert figure.better == "lower"
        assert figure.ratio > 0
    assert deep.baseline_value == newest.value


async def test_graphql_is_measured_against_rest():
    (figure,) = await requests.measure_graphql(rounds=2, round_s=0.1)
    assert figure.name == "graphql_requests"
    assert figure.value > 0
    assert figure.baseline_value > 0
    assert figure.ratio > 0


async def test_latency_is_measured_against_a_bare_relay():
    median, slow = await latency.measure(ticks=50)
    assert [median.name, slow.name] == ["latency_p50", "latency_p99"]
    assert 0 < median.value <= slow.value
    assert 0 < median.baseline_value <= slow.baseline_value
    assert median.better == slow.better == "lower"


async def test_an_outage_is_seen_and_its_end():
    figures = {figure.name: figure for figure in await outage.measure(0.3, requests_per_s=50)}
    assert figures["outage_requests"].value > 50
    assert figures["outage_5xx"].value == 0
    assert figures["outage_stale"].value >= 0
    assert figures["outage_fresh"].value >= 0
    assert figures["outage_slowest"].value > 0
    assert all(figure.better == "lower" for figure in [*figures.values()][1:])


async def test_fanout_is_measured_by_client_and_against_bare_sockets():
    figures = {figure.name: figure for figure in await fanout.measure(20, 10, rounds=2, crowd=40)}
    assert figures["fanout_up_to_date"].value == 20
    assert figures["fanout_crowd_up_to_date"].value == 40
    assert 0 < figures["fanout_p50"].value <= figures["fanout_p99"].value
    assert figures["fanout_crowd_p99"].baseline_value > 0
    assert figures["fanout_memory"].better == "lower"
    for name in ("fanout_messages", "fanout_one_symbol"):
        assert figures[name].value > 0
        assert figures[name].baseline_value > 0
        assert figures[name].ratio > 0


async def test_overload_is_measured_at_multiples_of_what_the_gateway_writes(monkeypatch):
    monkeypatch.setattr(overload, "_PROBE_S", 0.5)
    figures = {figure.name: figure for figure in await overload.measure(20, 0.5, factors=(1,))}
    assert figures["overload_writes"].value > 0
    assert figures["overload_1x_rate"].value > 0
    assert figures["overload_1x_p99"].value > 0
    assert figures["overload_1x_behind"].value in range(21)
    assert figures["overload_1x_answer"].value > 0


async def test_live_ticks_are_measured_in_both_forms(monkeypatch):
    monkeypatch.setattr(trickle, "_SETTLE_S", 0.1)
    figures = {figure.name: figure for figure in await trickle.measure(0.5, ticks=50)}
    for form in ("", "_processes"):
        assert min(figures[f"trickle_{rate}{form}"].value for rate in (100, 1000)) > 0
        assert 0 < figures[f"trickle_p50{form}"].value <= figures[f"trickle_p99{form}"].value
        assert figures[f"trickle_rest{form}"].value > 10
    assert figures["trickle_1000_stored"].value > 0
    assert figures["trickle_1000"].baseline_value == figures["trickle_1000_processes"].value


async def test_authentication_is_measured_against_the_same_without():
    figures = await auth.measure(clients=20, keys=100, rounds=2, round_s=0.1, ticks=5_000)
    names = [
        "auth_ingest_tls",
        "auth_rest",
        "auth_fanout",
        "auth_fanout_one_symbol",
        "auth_key_check",
    ]
    assert [figure.name for figure in figures] == names
    for figure in figures:
        assert figure.value > 0
        assert figure.baseline_value > 0
        assert figure.ratio > 0
    assert figures[-1].better == "lower"
