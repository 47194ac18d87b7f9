"""A second region: it has a copy of the ticks, makes everything else itself, and takes over."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request

import pytest

from mdtool.bench.market import NO_LIMIT
from tests.e2e.test_kafka_aggregate import TICKS, aggregator, check, ingest
from tests.e2e.test_kafka_store import storing, until
from tests.support.commands import output_of
from tests.support.kafka_brokers import kafka_broker
from tests.support.kafka_mirror import kafka_mirror
from tests.support.kafka_topics import Topics, sending, url_of, write_ticks
from tests.support.processes import ChildProcess
from tests.support.services import MDTOOL, service
from tests.support.waiting import wait_until

RATE = 100
"""So few that the first region is lost before it has all of them."""
FAST = 25_000


def digest_of(path):
    """The digest of all trades, and their number."""
    return output_of("digest", path, "-q").split()[:2]


def volumes_at(gateway):
    """The volume of each symbol that a gateway shows."""
    with urllib.request.urlopen(f"http://{gateway}/api/v2/aggregates") as answer:
        return {row["symbol"]: int(row["volume"]) for row in json.load(answer)["data"]}


@pytest.mark.slow
def test_a_second_region_continues_when_the_first_is_lost(tmp_path):
    ticks, store = tmp_path / "ticks.jsonl", f"sqlite:///{tmp_path}/trades.db"
    sent = write_ticks(ticks, TICKS)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(kafka_broker(folder)) for folder in folders)
        first_url = url_of(first)
        second_url = first_url.replace(first.address, second.address)
        topics = stack.enter_context(Topics(second_url))
        ingesting = stack.enter_context(ingest(first_url))
        mirror = kafka_mirror(tmp_path, first.address, second.address, topics.prefix)
        mirroring = stack.enter_context(mirror)
        stack.enter_context(aggregator(second_url))
        stack.enter_context(storing(second_url, store))
        reading = ("gateway", "--port", 0, "--bus", second_url, *NO_LIMIT)
        gateway = stack.enter_context(service(*reading))
        command = [MDTOOL, "send", ticks, ingesting.address, "--stream-id", "test"]
        with ChildProcess([*command, "--rate", str(RATE)], stdout=subprocess.DEVNULL) as sender:
            topics.wait_for("ticks", TICKS // 100)
            assert sender.poll() is None
            first.kill()
            for process in (mirroring, ingesting.process, sender):
                process.kill()
        address = stack.enter_context(ingest(second_url)).address
        with sending(ticks, address, TICKS, FAST):
            check(topics, sent)
        until(store, TICKS)
        expected = {symbol: sum(size for _, size, _ in ticks) for symbol, ticks in sent.items()}
        wait_until(lambda: volumes_at(gateway.address) == expected)
    assert digest_of(store) == digest_of(ticks)
