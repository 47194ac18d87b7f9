"""A raw client of the vendor's live protocol, and a live gateway in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import databento_dbn as dbn
import zstandard

from mdtool.core.addresses import parse_address
from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.server import LiveGateway
from mdtool.wire.live import (
    Accepted,
    Answer,
    AnswerDecoder,
    Challenge,
    Request,
    Start,
    Subscribe,
    authentication,
    encode_request,
)
from tests.support.dbn_files import MAY_1, header, trade, write
from tests.support.services import running
from tests.support.waiting import bounded

KEY = "k" * 32
ACK = "Subscription request {} for {} data succeeded"
BOTH_DAYS = {"AAPL": {1: 1, 2: 1}, "MSFT": {1: 2, 2: 2}}


@contextlib.asynccontextmanager
async def gateway(*paths: Path | str, **settings):
    """A gateway that plays as fast as clients read, unless the settings say otherwise."""
    async with controlled(*paths, **settings) as (address, _control):
        yield address


@contextlib.asynccontextmanager
async def controlled(*paths: Path | str, from_ns: int | None = None, **settings):
    """The same, with a function that sends requests to its control API."""
    config = LiveGatewayConfig(**{"port": 0, "speed": 0.0, **settings})
    played = LiveGateway(config, [str(path) for path in paths], from_ns=from_ns)
    async with running(played) as service, aiohttp.ClientSession() as http:

        async def control(method: str, path: str, **query: object) -> tuple[int, dict]:
            url = f"http://{service.addresses['control']}{path}"
            async with http.request(method, url, params=query) as response:
                return response.status, await response.json()

        yield service.addresses["live"], control


def wants(*symbols: str, schema: str = "trades", stype_in: str = "raw_symbol", **more) -> Subscribe:
    return Subscribe(schema, stype_in, symbols, **more)


def three_trades(path: Path) -> Path:
    """A file of two trades of AAPL, one of MSFT between them."""
    records = [trade(1, MAY_1 + 1, 10, 1), trade(2, MAY_1 + 2, 20, 1), trade(1, MAY_1 + 3, 11, 1)]
    return write(path / "trades.dbn", header(BOTH_DAYS), *records)


def trades_apart(path: Path, instants: int, name: str = "many.dbn") -> Path:
    """A file of so many trades, a millisecond apart."""
    records = [trade(1, MAY_1 + at * 10**6, 10, 1) for at in range(instants)]
    return write(path / name, header(BOTH_DAYS), *records)


class LiveClient:
    """A client that sends what it is told, valid or not.

    Attributes
    ----------
    answers : list
        What came before the DBN stream.
    received : list
        The stream's metadata and records, in order.
    data : bytearray
        Its bytes.
    text : str
        The stream as text, of a session that has it in place of DBN.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answers: list[Answer] = []
        self.received: list = []
        self.data = bytearray()
        self.text = ""
        self._reader = reader
        self._writer = writer
        self._control = AnswerDecoder()
        self._decoder: dbn.DBNDecoder

    async def answer(self, kind: type[Answer]) -> Answer:
        """Read up to an answer of a kind, and return it."""
        while True:
            for each in self.answers:
                if isinstance(each, kind):
                    return each
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError(self.answers)
            self.answers += self._control.feed(data)

    def send(self, *requests: Request | bytes) -> None:
        for each in requests:
            self._writer.write(each if isinstance(each, bytes) else encode_request(each))

    async def login(self, key: str = KEY, dataset: str = "XNAS.ITCH", **fields) -> None:
        """Authenticate; a rejection raises EOFError."""
        challenge = await self.answer(Challenge)
        request = authentication(challenge.cram, key, dataset)
        self.send(dataclasses.replace(request, **fields))
        await self.answer(Accepted)
        is_zstd = fields.get("compression") == "zstd"
        self._decoder = dbn.DBNDecoder(
            ts_out=fields.get("has_ts_out", False),
            upgrade_policy=dbn.VersionUpgradePolicy.AS_IS,
            compression=dbn.Compression.ZSTD if is_zstd else dbn.Compression.NONE,
        )
        self._is_text = fields.get("encoding", "dbn") != "dbn"
        self._zstd = zstandard.ZstdDecompressor().decompressobj() if is_zstd else None
        self._decode(self._control.rest)

    async def until(self, condition: Callable[[list], object]) -> list:
        """Read until something holds of what was received, and return that."""
        while not condition(self.received):
            if not await self._read():
                raise EOFError(self.received)
        return self.received

    async def rest(self) -> list:
        """Read to the end of the stream; return all that was received."""
        while await self._read():
            pass
        return self.received

    async def raw(self) -> bytes:
        """Read to the end of the stream, which is not decoded; return all of its bytes."""
        while data := await self._reader.read(1 << 16):
            self.data += data
        return bytes(self.data)

    def leave(self) -> None:
        """Close the sending half."""
        self._writer.write_eof()

    async def _read(self) -> bool:
        data = await self._reader.read(1 << 16)
        self._decode(data)
        return bool(data)

    def _decode(self, data: bytes) -> None:
        self.data += data
        if self._is_text:
            self.text += (self._zstd.decompress(data) if self._zstd and data else data).decode()
            return
        self.received += self._decoder.write_and_decode(data)


@contextlib.asynccontextmanager
async def client(address: str, receive_bytes: int | None = None):
    """A connection, which is closed after the block; the system holds so much that is not read."""
    host, port = parse_address(address)
    async with bounded():
        reader, writer = await asyncio.open_connection(host, port)
        if receive_bytes is not None:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        try:
            yield LiveClient(reader, writer)
        finally:
            writer.close()


async def session(address: str, *requests: Request, **fields) -> list:
    """All that a client receives that subscribes, starts, and reads to the end."""
    async with client(address) as connected:
        await connected.login(**fields)
        connected.send(*requests, Start())
        return await connected.rest()


def texts(received: list) -> list[str]:
    """What was received, in short: texts of messages, symbols of mappings, times of data."""
    return [_text(each) for each in received]


def _text(record) -> str:
    match record:
        case dbn.Metadata():
            return "metadata"
        case dbn.SystemMsg():
            return record.msg
        case dbn.ErrorMsg():
            return f"error {int(record.code)}: {record.err}"
        case dbn.SymbolMappingMsg():
            return f"{record.stype_in_symbol} = {record.stype_out_symbol} {record.instrument_id}"
    return f"{type(record).__name__} {record.instrument_id} {record.ts_event % 10**9}"
