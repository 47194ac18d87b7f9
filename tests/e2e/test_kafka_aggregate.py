"""Ticks through Kafka into aggregates, whatever is killed: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import signal
import subprocess

import pytest

from mdtool.adapters.kafka import client
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.topics import open_topics
from mdtool.adapters.kafka.transactions import FencedError, PartitionWriter
from tests.support.commands import completed
from tests.support.kafka_brokers import kafka_broker
from tests.support.kafka_topics import Topics, sending, sessions_of, url_of, write_ticks
from tests.support.services import MDTOOL, service

TICKS = 30_000
RATE = 10_000


@pytest.fixture
def sent(tmp_path):
    """What is in `ticks.jsonl`."""
    return write_ticks(tmp_path / "ticks.jsonl", TICKS)


def aggregator(url, session_ms=1_500):
    return service("aggregate", "--port", 0, "--bus", url, "--session-ms", session_ms)


def ingest(url, port=0):
    return service("serve-tcp", "--port", port, "--bus", url)


def check(topics, sent):
    """All that was sent is in the aggregates and in the bars, once."""
    topics.wait(TICKS)
    expected = sessions_of(sent)
    assert topics.sessions() == expected
    while topics.second_bars() != {symbol: bar[4:] for symbol, bar in expected.items()}:
        topics.read()
    assert topics.total("dead_letters") == 0


def test_partitions_are_reassigned_while_ticks_stream(kafka, tmp_path, sent):
    url = url_of(kafka)
    with contextlib.ExitStack() as stack, Topics(url) as topics:
        address = stack.enter_context(ingest(url)).address
        first = stack.enter_context(aggregator(url))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", address, TICKS, RATE))
        topics.wait_for("ticks", TICKS // 10)
        stack.enter_context(aggregator(url))
        stack.enter_context(aggregator(url))
        topics.wait_for("ticks", TICKS // 3)
        status, said = first.end(signal.SIGTERM)
        assert status == 0, said
        assert "partitions [" in said
        assert "revoked" in said
        check(topics, sent)


@pytest.mark.slow
def test_an_aggregator_of_three_is_killed(kafka, tmp_path, sent):
    url = url_of(kafka)
    with contextlib.ExitStack() as stack, Topics(url) as topics:
        address = stack.enter_context(ingest(url)).address
        three = [stack.enter_context(aggregator(url)) for _ in range(3)]
        stack.enter_context(sending(tmp_path / "ticks.jsonl", address, TICKS, RATE))
        for number, one in enumerate(three[:2], start=1):
            topics.wait_for("ticks", number * TICKS // 5)
            one.end(signal.SIGKILL)
        check(topics, sent)


def test_an_aggregator_that_was_taken_for_dead_writes_nothing_more(kafka, tmp_path, sent):
    url = url_of(kafka)
    with contextlib.ExitStack() as stack, Topics(url) as topics:
        address = stack.enter_context(ingest(url)).address
        stopped = stack.enter_context(aggregator(url))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", address, TICKS, RATE))
        topics.wait_for("ticks", TICKS // 5)
        stopped.process.send_signal(signal.SIGSTOP)
        stack.enter_context(aggregator(url))
        topics.wait_for("ticks", TICKS * 4 // 5)
        stopped.process.send_signal(signal.SIGCONT)
        check(topics, sent)
        status, said = stopped.end(signal.SIGTERM)
        assert status == 0, said


def test_a_writer_that_was_replaced_writes_nothing_more_however_much_is_logged(kafka, monkeypatch):
    # The client logs while its fatal error is pending, which Python turns into another one.
    monkeypatch.setitem(client._PRODUCING, "debug", "all")
    address = open_topics(KafkaAddress.parse(url_of(kafka))).address
    first, *_others = [PartitionWriter(address, 0, lambda: False) for _ in range(2)]
    with pytest.raises(FencedError, match="partition 0"):
        first.write([], [], [(offset, b"bytes", "reason") for offset in range(100)])


def test_the_ingest_server_is_killed(kafka, tmp_path, sent, free_port):
    url = url_of(kafka)
    with contextlib.ExitStack() as stack, Topics(url) as topics:
        stack.enter_context(aggregator(url))
        first = stack.enter_context(ingest(url, free_port))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", first.address, TICKS, RATE))
        topics.wait_for("ticks", TICKS // 5)
        first.end(signal.SIGKILL)
        stack.enter_context(ingest(url, free_port))
        check(topics, sent)


@pytest.mark.slow
def test_the_broker_is_killed_and_restarted(tmp_path, sent):
    folder = tmp_path / "broker"
    folder.mkdir()
    with kafka_broker(folder) as broker, contextlib.ExitStack() as stack:
        url = url_of(broker)
        topics = stack.enter_context(Topics(url))
        address = stack.enter_context(ingest(url)).address
        for _ in range(2):
            stack.enter_context(aggregator(url))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", address, TICKS, RATE))
        topics.wait_for("ticks", TICKS // 5)
        broker.kill()
        broker.start()
        check(topics, sent)


def wait_until_parted(member):
    """Wait until a member has noticed that its broker is silent: in a transaction, or idle."""
    line = b""
    while b"joining the group again" not in line and b"revoked" not in line:
        line = member.process.stderr.readline()
        assert line, "the member ended"


@pytest.mark.slow
def test_members_resume_after_the_broker_was_silent(tmp_path, sent):
    folder = tmp_path / "broker"
    folder.mkdir()
    with kafka_broker(folder) as broker, contextlib.ExitStack() as stack:
        url = url_of(broker)
        topics = stack.enter_context(Topics(url))
        address = stack.enter_context(ingest(url)).address
        one = stack.enter_context(aggregator(url))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", address, TICKS, RATE))
        topics.wait_for("ticks", TICKS // 5)
        broker.pause()
        wait_until_parted(one)
        broker.resume()
        check(topics, sent)


def test_invalid_records_become_dead_letters(kafka, tmp_path, sent):
    url = url_of(kafka)
    with contextlib.ExitStack() as stack, Topics(url) as topics:
        address = stack.enter_context(ingest(url)).address
        # Taken for dead, it would park them twice, and one of those in vain.
        one = stack.enter_context(aggregator(url, session_ms=60_000))
        stack.enter_context(sending(tmp_path / "ticks.jsonl", address, TICKS, RATE))
        topics.wait_for("ticks", TICKS // 5)
        for partition in range(3):
            topics.produce("ticks", b"poison %d" % partition, partition=partition)
        topics.wait(TICKS)
        topics.wait_for("dead_letters", 3)
        assert topics.sessions() == sessions_of(sent)
        letters = topics.dead_letters(3)
        assert {value for value, _ in letters} == {b"poison 0", b"poison 1", b"poison 2"}
        for value, headers in letters:
            assert headers["topic"].decode() == f"{topics.prefix}.ticks"
            assert headers["partition"] == value.split()[1]
            assert int(headers["offset"]) >= 0
            assert b"not a TickBatch" in headers["reason"]
        _, said = one.end(signal.SIGTERM)
        assert said.count("sent to the dead letters") == 3


@pytest.mark.parametrize(
    ("command", "host", "reason"),
    [
        ("serve-tcp", "127.0.0.1", ""),
        ("aggregate", "127.0.0.1", ""),
        ("serve-tcp", "no-such-host.invalid", "Failed to resolve 'no-such-host.invalid:1'"),
    ],
)
def test_an_unreachable_kafka_ends_a_start_in_time(command, host, reason):
    ended = completed(command, "--port", 0, "--bus", f"kafka://{host}:1?wait_s=1")
    assert ended.returncode == 3
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith(f"mdtool: kafka {host}:1: cannot be reached (")
    assert reason in line
    assert line.endswith("tried for 1 s)")


@pytest.mark.parametrize(
    ("bus", "reason"),
    [
        ("kafka://", "not an address"),
        ("kafka://host", "not an address"),
        ("redis://host:1", "is not the URL of a bus"),
        ("kafka://host:1?partitions=0", "not an integer from 1 to 256"),
        ("kafka://host:1?partitions=257", "not an integer from 1 to 256"),
        ("kafka://host:1?partition=3", "partition is not an option"),
        ("kafka://host:1?prefix=a/b", "prefix expects"),
        ("kafka://host:1/topic", "is not the URL of a bus"),
    ],
)
def test_an_invalid_bus_is_reported(bus, reason):
    ended = completed("serve-tcp", "--port", 0, "--bus", bus)
    assert ended.returncode == 2
    assert reason in ended.stderr.decode()


@pytest.mark.parametrize(
    ("partitions", "policy", "reason"),
    [(2, "compact", "has 2 partitions, not 3"), (3, "delete", "has cleanup.policy=delete, not")],
)
def test_topics_with_wrong_settings_are_rejected(kafka, partitions, policy, reason):
    url = url_of(kafka)
    with Topics(url) as topics:
        name = topics.make("aggregates", partitions, policy)
    ended = completed("aggregate", "--port", 0, "--bus", url)
    assert ended.returncode == 3
    assert f"topic {name} {reason}" in ended.stderr.decode()


def test_another_number_of_partitions_is_rejected(kafka):
    url = url_of(kafka)
    with ingest(url):
        pass
    ended = completed("serve-tcp", "--port", 0, "--bus", url.replace("=3", "=4"))
    assert ended.returncode == 3
    assert "has 3 partitions, not 4" in ended.stderr.decode()


def test_a_missing_client_is_reported_with_its_pip_install(tmp_path):
    (tmp_path / "confluent_kafka.py").write_text("raise ImportError('not here')")
    ended = subprocess.run(
        [MDTOOL, "serve-tcp", "--bus", "kafka://127.0.0.1:1"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "pip install 'mdtool[kafka]'" in ended.stderr.decode()


def test_a_bus_and_a_store_exclude_each_other():
    options = ("--bus", "kafka://127.0.0.1:1", "--store", "sqlite:////tmp/none.db")
    ended = completed("aggregate", *options)
    assert ended.returncode == 2
    assert "choose one" in ended.stderr.decode()
