"""What stands in mdtool's topics, read as any consumer would, and ticks to compare it with."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from mdtool.adapters.kafka.records import Aggregates, decode_bar, decode_session
from tests.support.processes import ChildProcess
from tests.support.services import MDTOOL
from tests.support.waiting import wait_until

SYMBOLS = ["AAPL", "AMZN", "BTC-USD", "ESZ5", "GOOG", "MSFT", "NVDA", "SPY", "TSLA"]
"""Some for each of three partitions."""
NOON_NS = 1_735_214_400 * 10**9
SECOND_NS = 10**9


def url_of(broker, partitions: int = 3, **more: object) -> str:
    """The URL of topics that no other test has."""
    query = {"prefix": f"test-{uuid.uuid4()}", "partitions": partitions, "wait_s": 60} | more
    return f"kafka://{broker.address}?" + "&".join(f"{key}={value}" for key, value in query.items())


Sent = dict[str, list[tuple[int, int, int]]]
"""Each symbol's ticks, in order: price in cents, volume, and the time in ns."""


def write_ticks(path: Path, count: int) -> Sent:
    """Write ticks as JSON lines, 500 to a second, and return them."""
    chance = random.Random(7)
    sent: Sent = {}
    with path.open("w") as lines:
        for number in range(count):
            symbol = chance.choice(SYMBOLS)
            cents, volume = chance.randint(10_000, 20_000), chance.randint(1, 900)
            at_ns = NOON_NS + number * SECOND_NS // 500
            tick = {
                "symbol": symbol,
                "price": cents / 100,
                "volume": volume,
                "exchange_timestamp": at_ns,
            }
            lines.write(json.dumps(tick) + "\n")
            sent.setdefault(symbol, []).append((cents, volume, at_ns))
    return sent


def sessions_of(sent: Sent) -> dict[str, tuple[int, ...]]:
    """Open, high, low, close, volume and count of each symbol."""
    sessions = {}
    for symbol, ticks in sent.items():
        prices = [cents * 10**7 for cents, _, _ in ticks]
        volume = sum(volume for _, volume, _ in ticks)
        ends = (prices[0], max(prices), min(prices), prices[-1])
        sessions[symbol] = (*ends, volume, len(ticks))
    return sessions


def bars_of(ticks: list[tuple[int, int, int]], length_s: int) -> list[dict[str, object]]:
    """Bars of a symbol's ticks as REST has them, newest first."""
    within: dict[int, list[tuple[int, int, int]]] = {}
    for tick in ticks:
        within.setdefault(tick[2] // (length_s * SECOND_NS), []).append(tick)
    return [
        {
            "timestamp": str(number * length_s * 1_000),
            "open": own[0][0] / 100,
            "high": max(own)[0] / 100,
            "low": min(own)[0] / 100,
            "close": own[-1][0] / 100,
            "volume": str(sum(volume for _, volume, _ in own)),
            "count": len(own),
        }
        for number, own in reversed(within.items())
    ]


@contextlib.contextmanager
def sending(path: Path, address: str, count: int, rate: float):
    """`send` on its way, at a rate that leaves time for what is to happen."""
    options = ["--rate", str(rate), "--stream-id", "test"]
    command = [MDTOOL, "send", str(path), address, *options]
    with ChildProcess(command, stdout=subprocess.PIPE) as process:
        yield process
        said = process.communicate()[0].decode()
    assert process.returncode == 0, said
    assert f"committed up to {count}" in said


class Topics:
    """A reader of what services have committed, as far as it was told to read."""

    def __init__(self, url: str) -> None:
        servers, _, query = url.removeprefix("kafka://").partition("?")
        given = dict(pair.split("=") for pair in query.split("&"))
        self.servers, self.prefix = servers, given["prefix"]
        self.partitions = int(given["partitions"])
        self.aggregates = [Aggregates() for _ in range(self.partitions)]
        self.bars: dict[tuple[str, int, int], tuple[int, ...]] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "none",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        self._producer = Producer({"bootstrap.servers": servers, "message.max.bytes": 4 << 20})
        self._is_assigned = False

    def __enter__(self):
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close()

    def wait(self, ticks: int) -> None:
        """Read on until so many ticks are in the aggregates, and not one more."""
        self._assign()
        while self.total("ticks") < ticks:
            self.read()
        assert self.total("ticks") == ticks

    def wait_for(self, name: str, total: int) -> None:
        """Read on until a total is so high."""
        self._assign()
        while self.total(name) < total:
            self.read()

    def read(self) -> None:
        """Take what comes next, if something does."""
        message = self._consumer.poll(0.2)
        if message is None or message.error() is not None:
            return
        if message.topic().endswith(".bars"):
            symbol, length, start = message.key().decode().rsplit("/", 2)
            self.bars[symbol, int(length), int(start)] = tuple(decode_bar(message.value()).tolist())
        else:
            self.aggregates[message.partition()].apply(message.key(), message.value())

    def total(self, name: str) -> int:
        return sum(each.totals.get(name, 0) for each in self.aggregates)

    def sessions(self) -> dict[str, tuple[int, ...]]:
        """As `sessions_of` has them."""
        return {
            symbol: tuple(decode_session(value).tolist()[:6])
            for each in self.aggregates
            for symbol, value in each.sessions.items()
        }

    def second_bars(self) -> dict[str, tuple[int, int]]:
        """The volume and the count of each symbol's bars of a second together."""
        bars = {key: bar for key, bar in self.bars.items() if key[1] == SECOND_NS}
        for each in self.aggregates:
            for (symbol, length), value in each.open_bars.items():
                if length == SECOND_NS:
                    bar = tuple(decode_bar(value).tolist())
                    bars[symbol, length, bar[3]] = bar
        totals: dict[str, tuple[int, int]] = {}
        for (symbol, _, _), bar in bars.items():
            volume, count = totals.get(symbol, (0, 0))
            totals[symbol] = (volume + bar[8], count + bar[9])
        return totals

    def dead_letters(self, count: int) -> list[tuple[bytes, dict[str, bytes]]]:
        """So many dead letters, with their headers."""
        self._consumer.assign([TopicPartition(f"{self.prefix}.dead-letters", 0, 0)])
        letters = []
        while len(letters) < count:
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                letters.append((message.value(), dict(message.headers())))
        return letters

    def produce(
        self, name: str, value: bytes, *, key: bytes | None = None, partition: int = 0
    ) -> None:
        """Put a record on a topic."""
        self._producer.produce(f"{self.prefix}.{name}", value, key, partition=partition)
        self._producer.flush()

    def delete(self, name: str) -> None:
        """Delete a topic."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        for deleted in admin.delete_topics([f"{self.prefix}.{name}"]).values():
            deleted.result()
        wait_until(lambda: f"{self.prefix}.{name}" not in admin.list_topics().topics)

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        new = NewPartitions(f"{self.prefix}.{name}", partitions)
        for added in admin.create_partitions([new]).values():
            added.result()

    def remake(self, name: str, partitions: int, policy: str) -> None:
        """Delete a topic, and make it again."""
        self.delete(name)
        self.make(name, partitions, policy)

    def forget(self, name: str, partitions: int) -> None:
        """Have all records of a topic be gone, as when they have expired."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        topic = f"{self.prefix}.{name}"
        places = [TopicPartition(topic, each, OFFSET_END) for each in range(partitions)]
        for deleted in admin.delete_records(places).values():
            deleted.result()

    def make(self, name: str, partitions: int, policy: str) -> str:
        """Make a topic; return its full name."""
        config = {"cleanup.policy": policy, "max.message.bytes": str(4 << 20)}
        topic = NewTopic(f"{self.prefix}.{name}", partitions, config=config)
        admin = AdminClient({"bootstrap.servers": self.servers})
        for made in admin.create_topics([topic]).values():
            made.result()
        return topic.topic

    def _assign(self) -> None:
        if not self._is_assigned:
            self._is_assigned = True
            self._consumer.assign(
                [
                    TopicPartition(f"{self.prefix}.{topic}", partition, 0)
                    for topic in ("aggregates", "bars")
                    for partition in range(self.partitions)
                ]
            )
