"""`serve all` on Kafka, with several aggregators, each kept running."""

from __future__ import annotations

import json
import os
import signal
import urllib.request

import pytest

from tests.support.kafka_topics import Topics, sending, sessions_of, url_of, write_ticks
from tests.support.supervised import FREE_PORTS, serve

TICKS = 20_000


@pytest.mark.slow
def test_the_whole_stack_with_three_aggregators_of_which_one_is_killed(kafka, tmp_path):
    bus = url_of(kafka)
    sent = write_ticks(tmp_path / "ticks.jsonl", TICKS)
    store = f"sqlite:///{tmp_path}/trades.db"
    options = ("--bus", bus, "--scale", "aggregate=3", "--store", store)
    with serve("all", *options, *FREE_PORTS, "-J") as stack, Topics(bus) as topics:
        addresses = stack.addresses(7)
        assert addresses.keys() == {
            "serve-tcp",
            "store",
            "aggregate-1",
            "aggregate-2",
            "aggregate-3",
            "vwap",
            "gateway",
        }
        with sending(tmp_path / "ticks.jsonl", addresses["serve-tcp"], TICKS, 10_000):
            topics.wait_for("ticks", TICKS // 5)
            os.kill(stack.pids()["aggregate-2"], signal.SIGKILL)
        topics.wait(TICKS)
        assert topics.sessions() == sessions_of(sent)
        for symbol, session in sessions_of(sent).items():
            aggregate = _aggregate_of(addresses["gateway"], symbol, session[4])
            assert aggregate["high"] == session[1] / 10**9
        assert stack.end(signal.SIGTERM) == 0, "".join(stack.lines)
        assert "ended by force" not in "".join(stack.lines)


def _aggregate_of(gateway, symbol, volume):
    """What REST says, once it has the volume."""
    while True:
        url = f"http://{gateway}/api/v1/marketdata/{symbol}"
        with urllib.request.urlopen(url, timeout=60) as response:
            aggregate = json.load(response)
        if int(aggregate["volume"]) == volume:
            return aggregate
