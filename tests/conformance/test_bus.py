"""What every Bus owes its callers, whatever carries it."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import numpy as np
import pytest

from mdtool.adapters.bus.grpc import GrpcBus
from mdtool.adapters.bus.memory import MemoryBus
from mdtool.adapters.bus.pending import MAX_BATCH_FRAMES
from mdtool.adapters.local_market import LocalMarket
from mdtool.adapters.local_rpc import LocalServer
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, Reason, Trades
from tests.reference.aggregator import PlainAggregator
from tests.reference.ledger import Ledger
from tests.reference.local_ledger import LedgerMarket
from tests.support.kafka_carrier import OverKafka


class OverGrpc:
    """A GrpcBus and an aggregator that can go away and come back."""

    doubles = 1
    """How often a run arrives again whose acknowledgement was lost."""

    def __init__(self, ledger, symbols) -> None:
        self._aggregator = PlainAggregator(ledger)
        self._symbols = symbols

    @contextlib.asynccontextmanager
    async def bus(self):
        async with GrpcBus(self._aggregator.address, self._symbols) as bus:
            yield bus

    def far_end(self):
        return self._aggregator.serving()

    def lose_ack(self) -> None:
        self._aggregator.ledger.loses_ack = True


class OverSocket(OverGrpc):
    """The same, with batches over a Unix socket."""

    def __init__(self, ledger, symbols, folder) -> None:
        super().__init__(ledger, symbols)
        self._path = str(folder / "aggregate")

    @contextlib.asynccontextmanager
    async def bus(self):
        async with GrpcBus(self._aggregator.address, self._symbols, self._path) as bus:
            yield bus

    @contextlib.asynccontextmanager
    async def far_end(self):
        async with self._aggregator.serving(), LocalServer(self._path, self):
            yield

    async def StreamTickBatches(self, requests, context):  # noqa: N802
        async for ack in self._aggregator.StreamTickBatches(requests, context):
            await context.write(ack)


class InMemory:
    """A MemoryBus, and a ledger as the market of the process."""

    doubles = 1

    def __init__(self, ledger, symbols) -> None:
        self._ledger = ledger
        self._symbols = symbols
        self._market = LocalMarket("127.0.0.1:50051")

    def bus(self):
        return MemoryBus(self._market, self._symbols)

    @contextlib.asynccontextmanager
    async def far_end(self):
        with self._market.offering(LedgerMarket(self._ledger)):
            yield

    def lose_ack(self) -> None:
        self._ledger.loses_ack = True


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def symbols():
    return SymbolTable(["AAPL", "MSFT"])


@pytest.fixture(params=[OverGrpc, OverSocket, InMemory, OverKafka])
def carrier(request, ledger, symbols):
    if request.param is OverKafka:
        return OverKafka(ledger, symbols, request.getfixturevalue("kafka"))
    if request.param is OverSocket:
        folder = request.getfixturevalue("tmp_path_factory").mktemp("s")
        return OverSocket(ledger, symbols, folder)
    return request.param(ledger, symbols)


class Commits:
    """The positions that a bus has told."""

    def __init__(self, bus) -> None:
        self.next_sequences: dict[str, list[int]] = {}
        self._changed = asyncio.Event()
        bus.subscribe(self._take)

    def _take(self, stream_id, next_sequence) -> None:
        self.next_sequences.setdefault(stream_id, []).append(next_sequence)
        self._changed.set()

    async def reach(self, stream_id, next_sequence) -> None:
        while self.next_sequences.get(stream_id, [0])[-1] < next_sequence:
            self._changed.clear()
            await self._changed.wait()


def run(prices, symbol=0, refused=()):
    """A run of frames with those prices, and refused ones at the given offsets."""
    frames = len(prices) + len(refused)
    offset = np.array([k for k in range(frames) if k not in refused], np.uint32)
    return Frames(
        Trades(
            symbol=np.full(len(prices), symbol, np.uint32),
            price=np.array(prices, np.int64) * 10**9,
            size=np.ones(len(prices), np.int64),
            ts_event=np.full(len(prices), 10**18),
            ts_recv=np.full(len(prices), 10**18),
        ),
        offset=offset,
        count=frames,
        refused_offset=np.array(refused, np.uint32),
        refused_reason=np.full(len(refused), Reason.PRICE, np.uint8),
    )


async def test_frames_arrive_once_in_order_with_their_symbols(carrier, ledger):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        bus.publish("s", 0, run([1, 2]))
        bus.publish("s", 2, run([3], symbol=1))
        bus.publish("s", 3, run([4]))
        await commits.reach("s", 4)
    assert ledger.prices("s") == [1, 2, 3, 4]
    assert [ledger.symbols["s"][k] for k in range(4)] == ["AAPL", "AAPL", "MSFT", "AAPL"]
    assert ledger.duplicates == 0


async def test_symbols_met_later_arrive_too(carrier, ledger, symbols):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        bus.publish("s", 0, run([1]))
        await commits.reach("s", 1)
        bus.publish("s", 1, run([2], symbol=symbols.intern("TSLA")))
        await commits.reach("s", 2)
    assert ledger.symbols["s"][1] == "TSLA"


async def test_each_stream_keeps_its_own_order(carrier, ledger):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        for k in range(50):
            for stream_id in ("a", "b", "c"):
                bus.publish(stream_id, k, run([k + 1]))
        for stream_id in ("a", "b", "c"):
            await commits.reach(stream_id, 50)
    for stream_id in ("a", "b", "c"):
        assert ledger.prices(stream_id) == list(range(1, 51))


async def test_refused_frames_take_their_positions_and_say_why(carrier, ledger):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        bus.publish("s", 0, run([1, 2], refused=(0, 2)))
        bus.publish("s", 4, run([], refused=(0,)))
        await commits.reach("s", 5)
    assert ledger.prices("s") == [None, 1, None, 2, None]
    assert ledger.reasons["s"] == dict.fromkeys((0, 2, 4), Reason.PRICE)


async def test_commits_are_reported_when_they_happen_and_not_before(carrier, ledger):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        ledger.hold()
        bus.publish("s", 0, run([1]))
        await ledger.when(lambda: ledger.batches == 1)
        assert commits.next_sequences == {}
        ledger.release()
        await commits.reach("s", 1)
        assert ledger.count() == 1


async def test_positions_only_rise(carrier):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        for k in range(200):
            bus.publish("s", k, run([k + 1]))
            await asyncio.sleep(0)
        await commits.reach("s", 200)
        told = commits.next_sequences["s"]
        assert told == sorted(told)


async def test_the_position_of_a_stream_outlives_the_bus(carrier):
    async with carrier.far_end():
        async with carrier.bus() as bus:
            assert await bus.position("s") == 0
            commits = Commits(bus)
            bus.publish("s", 0, run([1, 2, 3]))
            await commits.reach("s", 3)
            assert await bus.position("s") == 3
        async with carrier.bus() as bus:
            assert await bus.position("s") == 3
            assert await bus.position("other") == 0


async def test_a_stream_is_of_the_principal_that_claims_it_first(carrier):
    async with carrier.far_end(), carrier.bus() as other:
        async with carrier.bus() as bus:
            claims = [bus.own("s", "key:a"), other.own("s", "key:b"), bus.own("s", "key:c")]
            (owner, *_) = owners = await asyncio.gather(*claims)
            assert owner in {"key:a", "key:b", "key:c"}
            assert owners == [owner] * 3
            assert await other.own("t", "sub:\N{SNOWMAN}") == "sub:\N{SNOWMAN}"
            commits = Commits(bus)
            bus.publish("s", 0, run([1, 2]))
            await commits.reach("s", 2)
        async with carrier.bus() as bus:
            assert await bus.own("s", "key:d") == owner
            assert await bus.own("t", "key:d") == "sub:\N{SNOWMAN}"
            assert await bus.position("s") == 2
            assert await bus.position("t") == 0


async def test_frames_published_while_the_peer_is_unavailable_arrive_later(carrier, ledger):
    async with carrier.bus() as bus:
        commits = Commits(bus)
        for k in range(1_000):
            bus.publish("s", k, run([k + 1]))
        async with carrier.far_end():
            await commits.reach("s", 1_000)
    assert ledger.prices("s") == list(range(1, 1_001))


async def test_a_backlog_longer_than_a_batch_arrives_whole(carrier, ledger):
    frames = MAX_BATCH_FRAMES // 3
    async with carrier.bus() as bus:
        commits = Commits(bus)
        for k in range(10):
            bus.publish("s", k * frames, run([k + 1] * frames))
        async with carrier.far_end():
            await commits.reach("s", 10 * frames)
    assert ledger.count() == 10 * frames
    assert [ledger.frames["s"][k * frames] for k in range(10)] == list(range(1, 11))


async def test_a_position_is_awaited_while_the_peer_is_unavailable(carrier):
    async with carrier.bus() as bus:
        asked = asyncio.create_task(bus.position("s"))
        async with carrier.far_end():
            assert await asked == 0


async def test_a_lost_acknowledgement_doubles_nothing(carrier, ledger):
    async with carrier.bus() as bus, carrier.far_end():
        commits = Commits(bus)
        carrier.lose_ack()
        bus.publish("s", 0, run([1, 2]))
        await ledger.when(lambda: ledger.count() == 2)
        bus.publish("s", 2, run([3]))
        await commits.reach("s", 3)
    assert ledger.prices("s") == [1, 2, 3]
    assert ledger.duplicates == 2 * carrier.doubles


async def test_a_peer_that_reconnects_gets_what_it_had_not_committed(carrier, ledger):
    async with carrier.bus() as bus:
        commits = Commits(bus)
        async with carrier.far_end():
            bus.publish("s", 0, run([1]))
            await commits.reach("s", 1)
            ledger.hold()
            bus.publish("s", 1, run([2]))
            bus.publish("t", 0, run([7]))
            await ledger.when(lambda: ledger.batches >= 2)
        ledger.release()
        bus.publish("s", 2, run([3]))
        async with carrier.far_end():
            await commits.reach("s", 3)
            await commits.reach("t", 1)
    assert ledger.prices("s") == [1, 2, 3]
    assert ledger.prices("t") == [7]


async def test_a_refusal_for_good_ends_the_block(carrier, ledger):
    ledger.refusal = grpc.StatusCode.FAILED_PRECONDITION

    async def publish():
        async with carrier.bus() as bus, carrier.far_end():
            bus.publish("s", 0, run([1]))
            await asyncio.get_running_loop().create_future()

    with pytest.raises(PeerError, match="refused"):
        await publish()


async def test_the_block_ends_at_once_whatever_is_uncommitted(carrier, ledger):
    async with carrier.bus() as bus:
        bus.publish("s", 0, run([1]))
    assert ledger.count() == 0
