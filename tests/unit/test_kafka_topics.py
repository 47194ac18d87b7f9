"""Topics that cannot be opened yet: the servers are unavailable, or fewer than replicas."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException

from mdtool.adapters.kafka import topics
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core.errors import StartupError

ADDRESS = KafkaAddress.parse("kafka://127.0.0.1:1?prefix=p")
HASTY = KafkaAddress.parse("kafka://127.0.0.1:1?prefix=p&wait_s=1")
MADE = ["p.ticks", "p.streams", "p.aggregates", "p.bars", "p.dead-letters"]


def settled(code: int | None, value: object = None) -> Future[object]:
    """A call that has ended, with an error or not."""
    outcome: Future[object] = Future()
    if code is None:
        outcome.set_result(value)
    else:
        outcome.set_exception(KafkaException(KafkaError(code, "no")))
    return outcome


class Servers:
    """Servers that make the errors of a call, one each time, before they do what it asks for."""

    def __init__(self, **errors: list[int | None]) -> None:
        self.made: list[str] = []
        self.leader = 1
        self._errors = errors

    def _error(self, call: str) -> int | None:
        left = self._errors.get(call)
        return left.pop(0) if left else None

    def poll(self, _timeout: float) -> None:
        pass

    def list_topics(self, timeout: float) -> SimpleNamespace:
        if (code := self._error("list")) is not None:
            raise KafkaException(KafkaError(code, "no"))
        counts = {name: 1 if name in {"p.streams", "p.dead-letters"} else 6 for name in self.made}
        partition = SimpleNamespace(leader=self.leader)
        self.leader = 1
        found = {
            name: SimpleNamespace(error=None, partitions=dict.fromkeys(range(count), partition))
            for name, count in counts.items()
        }
        return SimpleNamespace(topics=found)

    def create_topics(self, wanted, **_options):
        return {topic.topic: self._make(topic.topic) for topic in wanted}

    def _make(self, name: str) -> Future[object]:
        if name in self.made:
            return settled(KafkaError.TOPIC_ALREADY_EXISTS)
        code = self._error("create")
        if code is None:
            self.made.append(name)
        return settled(code)

    def describe_configs(self, resources, **_options):
        names = [each.name.removeprefix("p.") for each in resources]
        policies = {"ticks": "delete", "dead-letters": "delete", "aggregates": "compact"}
        settings = [
            {"cleanup.policy": policies.get(name, "compact,delete"), "max.message.bytes": 1 << 30}
            for name in names
        ]
        values = [
            {key: SimpleNamespace(value=value) for key, value in each.items()} for each in settings
        ]
        code = self._error("settings")
        return {each: settled(code, value) for each, value in zip(resources, values, strict=True)}

    def describe_topics(self, collection, **_options):
        code = self._error("describe")
        described = SimpleNamespace(topic_id="id", partitions=[None] * 6)
        return {name: settled(code, described) for name in MADE if collection}


@pytest.fixture
def opened(monkeypatch):
    """What opens the topics of servers."""

    def open_(servers, address=ADDRESS):
        monkeypatch.setattr(topics, "admin", lambda *_: servers)
        return topics.open_topics(address)

    monkeypatch.setattr(topics, "_PAUSE_S", 0.001)
    return open_


@pytest.mark.parametrize(
    "errors",
    [
        {"list": [KafkaError._TRANSPORT, KafkaError._TIMED_OUT]},
        {"create": [KafkaError.INVALID_REPLICATION_FACTOR, None, KafkaError.NOT_CONTROLLER]},
        {"settings": [KafkaError._TRANSPORT]},
        {"describe": [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._TIMED_OUT]},
    ],
)
def test_what_servers_cannot_do_yet_is_tried_again(opened, errors, caplog):
    caplog.set_level("INFO", "mdtool")
    servers = Servers(**errors)
    assert opened(servers).partitions == 6
    assert sorted(servers.made) == sorted(MADE)
    assert caplog.text.count("; waiting for it") == caplog.text.count(": connected") == 1


def test_topics_without_leaders_are_waited_for(opened, caplog):
    servers = Servers()
    opened(servers)
    assert not caplog.text
    servers.leader = -1
    opened(servers)
    assert "cannot be reached (topics have no leaders); waiting for it" in caplog.text


@pytest.mark.parametrize("call", ["create", "settings", "describe"])
def test_what_servers_refuse_ends_a_start(opened, call):
    servers = Servers(**{call: [KafkaError.TOPIC_AUTHORIZATION_FAILED]})
    with pytest.raises(StartupError, match=r"kafka 127\.0\.0\.1:1: cannot \w+ (topic )?p\.\S+: no"):
        opened(servers)


def test_too_few_servers_end_a_start_when_its_time_is_over(opened):
    servers = Servers(create=[KafkaError.INVALID_REPLICATION_FACTOR] * 1_000_000)
    with pytest.raises(StartupError, match=r"topic p\.\S+: no; tried for 1 s\)"):
        opened(servers, HASTY)


def test_servers_that_reject_a_client_are_not_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(topics, "_REJECTED_S", 0.0)
    wait = topics._Wait(ADDRESS)
    for error in (
        KafkaError(KafkaError._AUTHENTICATION, "Authentication failed"),
        KafkaError(KafkaError._SSL, "certificate verify failed"),
    ):
        wait.note(error)
        with pytest.raises(StartupError, match=rf"\({error.str()}; tried for 0 s\)"):
            wait.pause("timed out")
        wait.note(KafkaError(KafkaError._TRANSPORT, "Connection refused"))
    assert not caplog.text
    wait.note(KafkaError(KafkaError._SSL, "handshake failed: Disconnected"))
    wait.pause("timed out")
    assert "(handshake failed: Disconnected); waiting for it" in caplog.text
