"""The bench of Kafka, small, on a real broker."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import AdminClient

from mdtool.bench.kafka import BROKER, measure
from mdtool.core.errors import StartupError, UsageError


async def test_ticks_are_measured_and_topics_deleted(kafka, monkeypatch):
    monkeypatch.setenv(BROKER, kafka.address)
    monkeypatch.setattr("mdtool.bench.kafka.START_S", 60)
    (figure,) = await measure(ticks=20_000, rounds=1)
    assert figure.name == "kafka"
    assert figure.value > 0
    assert figure.ratio is not None
    admin = AdminClient({"bootstrap.servers": kafka.address})
    while any("bench" in name for name in admin.list_topics().topics):
        pass  # the broker deletes them when it finds the time


async def test_without_a_broker_the_bench_fails(monkeypatch):
    monkeypatch.delenv(BROKER, raising=False)
    with pytest.raises(UsageError, match=BROKER):
        await measure()
    monkeypatch.setenv(BROKER, "kafka://127.0.0.1:1")
    monkeypatch.setattr("mdtool.bench.kafka.START_S", 1)
    with pytest.raises(StartupError, match="cannot be reached"):
        await measure()
