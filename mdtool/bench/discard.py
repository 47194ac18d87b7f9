"""A TCP server that reads what it is sent and does nothing with it: the baseline of ingest."""

from __future__ import annotations

import asyncio

from mdtool.core.lifecycle import Started, run_service
from mdtool.services.ingest.server import READ_BYTES
from mdtool.services.tcp import address_of, listen
from mdtool.wire.control import encode_ack


class DiscardingServer:
    """Answers an Ack at the end of what it has discarded."""

    name = "discard"

    async def run(self, started: Started) -> None:
        """Serve until cancelled."""
        buffer = memoryview(bytearray(READ_BYTES))
        server = await listen(lambda: _Discarding(buffer), "127.0.0.1", 0)
        async with server:
            started({"tcp": address_of(server)})
            await server.serve_forever()


class _Discarding(asyncio.BufferedProtocol):
    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio always asks for -1
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received_bytes += nbytes

    def eof_received(self) -> None:
        self._transport.write(encode_ack(True, f"Discarded {self._received_bytes} bytes"))


if __name__ == "__main__":
    run_service(DiscardingServer())
