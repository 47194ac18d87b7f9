"""Live data: what the gateway sends to one client, how late to many, and what a source takes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.outputs import OutputSpec, open_output
from mdtool.bench import baselines, sources
from mdtool.bench.figures import Figure, against, in_turns
from mdtool.bench.processes import addresses, server
from mdtool.bench.recordings import write_recording
from mdtool.core.addresses import parse_address
from mdtool.core.batch import Batch
from mdtool.core.dtypes import F_LAST, MBO, RTYPE_MBO, record_length
from mdtool.core.errors import PeerError
from mdtool.core.records import index_timestamps
from mdtool.core.units import NS_PER_S, PRICE_SCALE
from mdtool.engine.simulate import Exchange
from mdtool.wire.dbn import DbnDecoder
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_records import CONTROL_RTYPES
from mdtool.wire.live import (
    ALL_SYMBOLS,
    AnswerDecoder,
    Challenge,
    Start,
    Subscribe,
    authentication,
    encode_request,
)

RECORDS: Final = 2_000_000
SESSIONS: Final = 100
SECONDS: Final = 8.0
ORDERS: Final = 10_000
_ROUNDS: Final = 3
Times = NDArray[np.int64]
_DATASET: Final = "BENCH"
_KEY: Final = "k" * 32
_BUFFER_BYTES: Final = 1 << 20
_RATE: Final = 2_000.0
"""Orders a second, of five symbols."""
_SCHEMAS: Final = ("mbo", "trades", "mbp-1", "mbp-10")
_SNAPSHOT_SYMBOL: Final = "99"
_SNAPSHOT_ID: Final = 99
_WINDOW_S: Final = 1.0
"""How long others are watched after a session with a snapshot has joined."""
_PATIENCE_S: Final = 60.0


async def measure(
    records: int = RECORDS,
    rounds: int = _ROUNDS,
    sessions: int = SESSIONS,
    seconds: float = SECONDS,
    messages: int = sources.MESSAGES,
) -> list[Figure]:
    """Return records a second to one client at full speed, and lateness at real time.

    The last figure is what becomes DBN of recorded messages of a source.

    The baseline of the rates sends the bytes of the same file in a loop over a socket; that of
    lateness sends its records when they are due, each to a third of as many connections, right
    after the gateway. Lateness is how long after its time a record arrives, beyond the one that
    came soonest.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.dbn"
        n_records = write_recording(path, Exchange(seed=1).generate(records // 2), 2)
        rates = await _rates(path, n_records, rounds)
        paced = Path(folder) / "paced.dbn"
        _write_paced(paced, seconds)
        late = await _lateness(paced, sessions, seconds)
    # Of commands that end: without a loop to run in.
    ingested = await asyncio.to_thread(sources.ingest_kraken, messages, rounds)
    return [*rates, *late, ingested]


async def _rates(path: Path, n_records: int, rounds: int) -> list[Figure]:
    names = ("live_mbo", "live_mbo_no_books", "live_trades")
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    async with (
        server(baselines.MODULE, "bytes", str(path)) as plain,
        _gateway(path, "--speed", "0") as whole,
        _gateway(path, "--speed", "0", "--no-snapshots") as bare,
    ):
        ways = {
            names[0]: (whole, Subscribe("mbo", "raw_symbol", (ALL_SYMBOLS,))),
            names[1]: (bare, Subscribe("mbo", "raw_symbol", (ALL_SYMBOLS,))),
            names[2]: (bare, Subscribe("trades", "raw_symbol", (ALL_SYMBOLS,))),
        }
        for _ in range(rounds + 1):
            plain_s = await asyncio.to_thread(_read_plain, plain)
            for name, (address, request) in ways.items():
                taken_s = await asyncio.to_thread(_read_session, address, request)
                pairs[name].append((n_records / taken_s, n_records / plain_s))
    baseline = "the bytes of the same records from a plain socket loop"
    # The first round compiles and fills caches.
    return [in_turns(name, "records/s", baseline, pairs[name][1:]) for name in names]


@contextlib.asynccontextmanager
async def _gateway(path: Path, *options: str) -> AsyncIterator[str]:
    command = ("mdtool", "--log-level", "error", "live-gateway", str(path), "--port", "0")
    async with addresses(*command, *options) as found:
        yield found["live"]


def _read_plain(address: str) -> float:
    """Return how many seconds it takes to read a connection to its end."""
    with socket.create_connection(parse_address(address)) as connection:
        began_s = time.perf_counter()
        _drain(connection)
        return time.perf_counter() - began_s


def _read_session(address: str, request: Subscribe) -> float:
    """Return how many seconds a session takes from its start to its end."""
    with socket.create_connection(parse_address(address)) as connection:
        answers = AnswerDecoder()
        received = answers.feed(connection.recv(_BUFFER_BYTES))
        while not any(isinstance(each, Challenge) for each in received):
            received += answers.feed(connection.recv(_BUFFER_BYTES))
        (challenge,) = [each for each in received if isinstance(each, Challenge)]
        login = authentication(challenge.cram, _KEY, _DATASET)
        connection.sendall(encode_request(login) + encode_request(request))
        answers.feed(connection.recv(_BUFFER_BYTES))
        began_s = time.perf_counter()
        connection.sendall(encode_request(Start()))
        _drain(connection)
        return time.perf_counter() - began_s


def _drain(connection: socket.socket) -> None:
    buffer = bytearray(_BUFFER_BYTES)
    while connection.recv_into(buffer):
        pass


def _write_paced(path: Path, seconds: float) -> None:
    """Write simulated orders of some seconds, behind many resting orders of another symbol."""
    exchange = Exchange(seed=2, rate=_RATE)
    orders = exchange.generate(int(_RATE * seconds))
    resting = np.zeros(ORDERS, MBO)
    resting["length"], resting["rtype"] = record_length(MBO), RTYPE_MBO
    resting["publisher_id"], resting["instrument_id"] = orders["publisher_id"][0], _SNAPSHOT_ID
    resting["ts_event"] = resting["ts_recv"] = orders["ts_recv"][0]
    resting["order_id"] = np.arange(1, ORDERS + 1) + (1 << 40)
    resting["price"] = (100 + np.arange(ORDERS) % 500) * PRICE_SCALE
    resting["size"], resting["action"], resting["side"] = 1, b"A", b"B"
    resting["flags"] = F_LAST
    spec = OutputSpec("dbn", str(path))
    start_ns = int(orders["ts_recv"][0])
    output = open_output(spec, make_metadata(_DATASET, "mbo", start_ns))
    output.write(Batch.of(np.concatenate([resting, orders])))
    output.close()


@dataclass(slots=True)
class _Session:
    """A session, and what arrived when."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    decoder: DbnDecoder = field(default_factory=DbnDecoder)
    arrived: list[tuple[int, bytes]] = field(default_factory=list)

    @classmethod
    async def open(cls, address: str) -> _Session:
        reader, writer = await asyncio.open_connection(*parse_address(address))
        session, answers = cls(reader, writer), AnswerDecoder()
        found: list[object] = []
        while not any(isinstance(each, Challenge) for each in found):
            found += answers.feed(await reader.read(_BUFFER_BYTES))
        (challenge,) = [each for each in found if isinstance(each, Challenge)]
        writer.write(encode_request(authentication(challenge.cram, _KEY, _DATASET)))
        while not answers.feed(await reader.read(_BUFFER_BYTES)):
            pass
        return session

    def start(self, request: Subscribe) -> None:
        self.writer.write(encode_request(request) + encode_request(Start()))

    async def read(self) -> None:
        """Read to the end; nothing is decoded meanwhile, which would keep records waiting."""
        while data := await self.reader.read(_BUFFER_BYTES):
            self.arrived.append((time.time_ns(), data))

    def arrivals(self) -> Iterator[tuple[int, Times]]:
        """Yield when records arrived, with the times that they have."""
        for now_ns, data in self.arrived:
            for records in self.decoder.feed(data):
                if int(records["rtype"][0]) not in CONTROL_RTYPES:
                    yield now_ns, index_timestamps(records)

    def arrivals_of(self, layout: np.dtype[np.void]) -> Iterator[tuple[int, Times]]:
        """Yield the same of records without a header, all of one layout."""
        rest = b""
        for now_ns, data in self.arrived:
            whole, n_bytes = rest + data, len(rest) + len(data)
            n_records = n_bytes // layout.itemsize
            rest = whole[n_records * layout.itemsize :]
            if n_records:
                yield now_ns, index_timestamps(np.frombuffer(whole, layout, n_records))

    async def snapshot(self) -> None:
        """Read until a snapshot has come."""
        n_orders = 0
        while n_orders < ORDERS:
            data = await self.reader.read(_BUFFER_BYTES)
            if not data:
                raise PeerError("the session ended before its snapshot was complete")
            for records in self.decoder.feed(data):
                n_orders += len(records) if records.dtype == MBO else 0


async def _lateness(path: Path, n_sessions: int, seconds: float) -> list[Figure]:
    options = ("--speed", "1", "--rebase", "now", "--max-sessions", str(2 * n_sessions))
    symbols = [str(number) for number in range(1, 6)]
    async with asyncio.timeout(seconds + _PATIENCE_S), _gateway(path, *options) as address:
        opened = [await _Session.open(address) for _ in range(n_sessions + 1)]
        *watched, joining = opened
        for number, session in enumerate(watched):
            chosen = (symbols[number % 5], *symbols[: number % 3])
            schema = _SCHEMAS[number // 5 % len(_SCHEMAS)]
            session.start(Subscribe(schema, "instrument_id", tuple(dict.fromkeys(chosen))))
        reading = [asyncio.create_task(session.read()) for session in watched]
        await asyncio.sleep(seconds * 0.6)
        joined_ns = time.time_ns()
        joining.start(Subscribe("mbo", "instrument_id", (_SNAPSHOT_SYMBOL,), has_snapshot=True))
        await joining.snapshot()
        snapshot_ms = (time.time_ns() - joined_ns) / 1e6
        await asyncio.gather(*reading)
        for session in opened:
            session.writer.close()
    late = [entry for session in watched for entry in session.arrivals()]
    settled_ns = late[0][0] + NS_PER_S  # the opening book comes at once
    before = _late_ms(late, settled_ns, joined_ns)
    during = _late_ms(late, joined_ns, joined_ns + int(_WINDOW_S * NS_PER_S))
    soonest = min(before.min(), during.min())
    plain_ms = await _plain_lateness(path, n_sessions, seconds)
    baseline = "a loop that writes each record to a third of the connections"
    return [
        against(
            f"live_late_p99_{n_sessions}", _p99(before - soonest), "ms", baseline, plain_ms, "lower"
        ),
        Figure("live_snapshot", snapshot_ms, "ms", "lower"),
        against(
            "live_late_p99_snapshot", _p99(during - soonest), "ms", baseline, plain_ms, "lower"
        ),
    ]


async def _plain_lateness(path: Path, n_connections: int, seconds: float) -> float:
    """Return how late the last hundredth of records is from a loop that only writes them, in ms."""
    async with (
        asyncio.timeout(seconds + _PATIENCE_S),
        server(baselines.MODULE, "paced", str(path)) as address,
    ):
        opened = [
            _Session(*await asyncio.open_connection(*parse_address(address)))
            for _ in range(n_connections)
        ]
        opened[-1].writer.write(b"\n")
        await asyncio.gather(*[session.read() for session in opened])
        for session in opened:
            session.writer.close()
    late = [entry for session in opened for entry in session.arrivals_of(MBO)]
    found = _late_ms(late, late[0][0] + NS_PER_S, late[0][0] + int(seconds * NS_PER_S))
    return _p99(found - found.min())


def _late_ms(late: Iterable[tuple[int, Times]], begin_ns: int, end_ns: int) -> NDArray[np.float64]:
    """Return how late the records were that arrived within a time, in ms."""
    found = [(now_ns - ts_ns) / 1e6 for now_ns, ts_ns in late if begin_ns <= now_ns < end_ns]
    return np.concatenate(found)


def _p99(late_ms: NDArray[np.float64]) -> float:
    return float(np.percentile(late_ms, 99))
