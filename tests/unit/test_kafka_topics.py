"""Topics that cannot be created yet: there are fewer servers than replicas."""

from __future__ import annotations

import math
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException

from mdtool.adapters.kafka import topics
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core.errors import StartupError

ADDRESS = KafkaAddress.parse("kafka://127.0.0.1:1?prefix=p")


class Servers:
    """Refuse to make each topic so many times."""

    def __init__(self, refusals: int) -> None:
        self.made: list[str] = []
        self._refusals = dict.fromkeys(("p.ticks", "p.bars"), refusals)

    def create_topics(self, wanted, **_options):
        return {topic.topic: self._make(topic.topic) for topic in wanted}

    def _make(self, name: str) -> Future[None]:
        outcome: Future[None] = Future()
        if self._refusals[name]:
            self._refusals[name] -= 1
            error = KafkaError(KafkaError.INVALID_REPLICATION_FACTOR, "too few servers")
            outcome.set_exception(KafkaException(error))
        else:
            self.made.append(name)
            outcome.set_result(None)
        return outcome


def test_topics_are_created_once_there_are_enough_servers():
    servers = Servers(refusals=2)
    topics._create(servers, ADDRESS, ["ticks", "bars"], 3, math.inf)
    assert servers.made == ["p.ticks", "p.bars"]


def test_too_few_servers_end_a_start_when_its_time_is_over():
    with pytest.raises(StartupError, match=r"cannot create topic p\.ticks: too few servers"):
        topics._create(Servers(refusals=1), ADDRESS, ["ticks"], 3, 0.0)
