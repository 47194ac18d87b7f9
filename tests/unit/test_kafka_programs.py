"""Which processes a supervisor runs where they hand everything over on Kafka."""

from __future__ import annotations

import pytest

from mdtool.core.errors import ConfigError, UsageError
from mdtool.core.lifecycle import stop_within_s
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.programs import programs
from mdtool.services.supervisor.topology import prepared, stored_in

pytestmark = pytest.mark.usefixtures("no_settings")

BUS = "kafka://127.0.0.1:9092"
STORE = "sqlite:////data/trades.db"


def of(**config):
    with topology_of(**config) as topology:
        return programs(topology, ["mdtool"])


def topology_of(**config):
    return prepared(ServeConfig(**{"bus": BUS, "store": STORE} | config))


def test_services_are_given_the_bus_instead_of_each_other():
    running = of()
    assert {program.name: " ".join(program.command[1:]) for program in running} == {
        "gateway": "gateway --host 127.0.0.1 --port 8080 --vwap 127.0.0.1:8888",
        "vwap": "vwap --host 127.0.0.1 --port 8888",
        "aggregate": "aggregate --host 127.0.0.1 --port 50051",
        "store": f"store --bus {BUS}",
        "serve-tcp": "serve-tcp --host 127.0.0.1 --port 50050",
    }
    assert {program.name: program.environment for program in running} == {
        "gateway": {"MDTOOL_GATEWAY_STORE": STORE, "MDTOOL_GATEWAY_BUS": BUS},
        "vwap": {"MDTOOL_VWAP_STORE": STORE, "MDTOOL_VWAP_BUS": BUS},
        "aggregate": {"MDTOOL_AGGREGATE_STORE": "", "MDTOOL_AGGREGATE_BUS": BUS},
        "store": {"MDTOOL_STORE_STORE": STORE},
        "serve-tcp": {"MDTOOL_SERVE_TCP_BUS": BUS},
    }
    places = "kafka 127.0.0.1:9092 and sqlite /data/trades.db"
    with topology_of() as topology:
        assert stored_in(topology) == f"trades and state are stored in {places}"


def test_several_aggregators_share_the_work_and_one_has_the_port():
    running = of(scale="aggregate=3")
    aggregators = {p.name: p.command[-1] for p in running if p.group == "aggregate"}
    assert aggregators == {"aggregate-1": "50051", "aggregate-2": "0", "aggregate-3": "0"}


def test_without_a_store_only_the_bus_stores():
    running = of(store=None, memory=True)
    assert "store" not in [program.name for program in running]
    with topology_of(store=None, memory=True) as topology:
        assert stored_in(topology) == "trades and state are stored in kafka 127.0.0.1:9092"


def test_only_some_services_on_a_bus():
    assert [program.name for program in of(only="store,aggregate")] == ["aggregate", "store"]


@pytest.mark.parametrize("config", [{}, {"scale": "aggregate=64"}, {"simulate": True}])
def test_what_all_may_take_to_stop_is_less_than_the_supervisor_may(config):
    stop_s = {p.group or p.name: p.stop_s for p in of(**config)}
    assert 0.95 * stop_within_s() < sum(stop_s.values()) < stop_within_s()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"scale": "aggregate=3", "bus": ""}, UsageError, "--scale requires --bus"),
        ({"scale": "aggregate"}, UsageError, "give aggregate=N"),
        ({"scale": "gateway=2"}, UsageError, "give aggregate=N"),
        ({"scale": "aggregate=0"}, UsageError, "give aggregate=N"),
        ({"bus": "kafka://nowhere"}, ConfigError, "not an address"),
        ({"bus": "", "only": "store"}, UsageError, "no such service"),
    ],
)
def test_invalid_settings_are_rejected(config, error, message):
    with pytest.raises(error, match=message):
        of(**config)
