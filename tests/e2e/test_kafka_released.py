"""Topics as the first version with Kafka wrote them, which this version reads and continues."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.topics import open_topics
from mdtool.adapters.stores import open_history
from mdtool.wire._pb import marketdata_pb2
from tests.support.commands import completed
from tests.support.gateways import gateway_of
from tests.support.kafka_topics import NOON_NS, SECOND_NS, Topics, bars_of, sessions_of, url_of
from tests.support.services import service
from tests.support.waiting import bounded, wait_until

BEFORE: Final = [
    (10_000, 5, NOON_NS),
    (10_200, 7, NOON_NS + 1),
    (10_100, 1, NOON_NS + SECOND_NS),
]
AFTER: Final = [(9_900, 2, NOON_NS + SECOND_NS + 1), (10_400, 3, NOON_NS + 2 * SECOND_NS)]
"""Cents, volume, and the time in ns."""
LENGTHS_S: Final = {"1s": 1, "1m": 60, "5m": 300, "1h": 3_600, "1d": 86_400}


def int64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}q", *numbers)


def batch() -> bytes:
    """The record of the first ticks, without lots, probes and traces, which came later."""
    cents, volumes, times = zip(*BEFORE, strict=True)
    return marketdata_pb2.TickBatch(
        stream_id="feed",
        first_sequence=0,
        frames=len(BEFORE),
        new_symbols=["AAPL"],
        symbol=bytes(4 * len(BEFORE)),
        price=int64(*(price * 10**7 for price in cents)),
        volume=int64(*volumes),
        exchange_timestamp=int64(*times),
        ingest_timestamp=int64(*times),
    ).SerializeToString()


def bar(length_s: int, start_ns: int, ticks, *, is_open: bool) -> bytes:
    """A bar of ticks in order of time."""
    prices = [cents * 10**7 for cents, _, _ in ticks]
    return int64(
        *(length_s * SECOND_NS, is_open, start_ns),
        *(prices[0], max(prices), min(prices), prices[-1]),
        *(sum(volume for _, volume, _ in ticks), len(ticks)),
        *(ticks[0][2], ticks[-1][2]),
    )


def fill(topics: Topics) -> None:
    """Put the first ticks, and what follows from them, on topics of one partition."""
    topics.produce("ticks", batch())
    topics.produce("streams", b"3", key=b"feed")
    opened, high, low, close, volume, count = sessions_of({"AAPL": BEFORE})["AAPL"]
    last = BEFORE[-1][2]
    closed = bar(1, NOON_NS, BEFORE[:2], is_open=False)
    session = int64(opened, high, low, close, volume, count, last, last)
    records = {
        b"s/AAPL": session,
        b"o/AAPL/%d" % SECOND_NS: bar(1, NOON_NS + SECOND_NS, BEFORE[2:], is_open=True),
        b"b/AAPL/%d/0" % SECOND_NS: closed,
        b"p/feed": b"3",
        b"t/": json.dumps({"offset": 1, "ticks": 3, "late": 0, "duplicates": 0}).encode(),
    }
    for length_s in (60, 300, 3_600, 86_400):
        start_ns = NOON_NS // (length_s * SECOND_NS) * length_s * SECOND_NS
        key = b"o/AAPL/%d" % (length_s * SECOND_NS)
        records[key] = bar(length_s, start_ns, BEFORE[:2], is_open=True)
    for key, value in records.items():
        topics.produce("aggregates", value, key=key)
    topics.produce("bars", closed, key=b"AAPL/%d/%d" % (SECOND_NS, NOON_NS))


async def test_released_topics_are_read_and_continued(kafka, tmp_path):
    url, store = url_of(kafka, partitions=1), f"sqlite:///{tmp_path}/trades.db"
    path = tmp_path / "ticks.jsonl"
    with path.open("w") as lines:
        for cents, volume, at_ns in BEFORE + AFTER:
            tick = {"symbol": "AAPL", "price": cents / 100, "volume": volume}
            lines.write(json.dumps(tick | {"exchange_timestamp": at_ns}) + "\n")
    open_topics(KafkaAddress.parse(url))
    with contextlib.ExitStack() as stack, Topics(url) as topics:
        fill(topics)
        ingest = stack.enter_context(service("serve-tcp", "--port", 0, "--bus", url))
        stack.enter_context(service("aggregate", "--port", 0, "--bus", url))
        stack.enter_context(service("store", "--bus", url, "--store", store))
        sent = completed("send", path, ingest.address, "--stream-id", "feed")
        assert sent.returncode == 0, sent.stderr.decode()
        topics.wait(len(BEFORE + AFTER))
        assert topics.sessions() == sessions_of({"AAPL": BEFORE + AFTER})
        wait_until(lambda: stored(store) == len(BEFORE + AFTER))
        async with gateway_of("127.0.0.1:1", bus=url) as client, bounded():
            for interval, length_s in LENGTHS_S.items():
                expected = bars_of(BEFORE + AFTER, length_s)
                while await bars(client, interval) != expected:
                    pass


async def bars(client, interval: str):
    """The bars of an interval; none before they are known."""
    status, answer = await client.answer(f"/api/v1/bars/AAPL?interval={interval}")
    return answer["data"] if status == 200 else None


def stored(url: str) -> int:
    """How many trades a store has."""
    with open_history(url) as history:
        return sum(each.trade_count for each in history.symbols())
