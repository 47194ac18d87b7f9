"""What the client calls raises nothing through it."""

from __future__ import annotations

from unittest import mock

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.topics import Identity, Topics
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.kafka_aggregator import GroupMember
from mdtool.services.kafka_reading import KafkaReading


class Group:
    """A consumer of a group, which takes a partition back and then cannot."""

    def __init__(self) -> None:
        self.has_returned = self.is_closed = False

    def subscribe(self, _topics, *, on_revoke, **_callbacks) -> None:
        self._on_revoke = on_revoke

    def poll(self, _timeout) -> None:
        self._on_revoke(self, [TopicPartition("mdtool.ticks", 0)])
        self.has_returned = True

    def incremental_unassign(self, _partitions) -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))

    def close(self) -> None:
        self.is_closed = True


def test_a_callback_that_fails_ends_the_part_in_the_group_after_the_call(monkeypatch):
    group = Group()
    address = KafkaAddress("127.0.0.1:1")
    topics = Topics(address, 1, {"mdtool.ticks": Identity("id", 1)})
    monkeypatch.setattr(
        "mdtool.services.aggregator.kafka_aggregator.consumer", mock.Mock(return_value=group)
    )
    told = mock.Mock()
    member = GroupMember(topics, AggregatorConfig(), told, KafkaReading())
    told.side_effect = lambda _: member.stop()
    member.run()
    assert group.has_returned
    assert group.is_closed
