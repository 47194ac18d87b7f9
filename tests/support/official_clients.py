"""The official Python client, unchanged, of a live gateway in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import warnings

import pytest

from mdtool.core.addresses import parse_address
from tests.support.waiting import WITHIN_S

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pandas, which it imports
    databento = pytest.importorskip("databento", reason="the official client is not installed")

KEY = "x" * 32


def live(address: str, **settings):
    """A client that is not connected yet."""
    host, port = parse_address(address)
    return databento.Live(key=KEY, gateway=host, port=port, **settings)


async def off_the_loop(work, *arguments):
    """What a client does in its own thread, while the gateway works in the test's."""
    async with asyncio.timeout(WITHIN_S):
        return await asyncio.to_thread(work, *arguments)


def closed(client) -> None:
    """Wait until its session has ended."""
    client.block_for_close(timeout=WITHIN_S)


@contextlib.asynccontextmanager
async def relay(address: str):
    """An address in front of another one, and a function that resets the connections through it."""
    host, port = parse_address(address)
    accepted: list[asyncio.StreamWriter] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))

    def reset() -> None:
        for writer in accepted:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        accepted.clear()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield "{}:{}".format(*server.sockets[0].getsockname()[:2]), reset
