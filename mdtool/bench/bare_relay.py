"""The least that the way from TCP to a WebSocket can be: one process that passes frames on.

Run as a module.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Final

from aiohttp import web

from mdtool.core.addresses import format_address
from mdtool.core.lifecycle import Started, run_service
from mdtool.services.tcp import address_of

_PREFIX_BYTES: Final = 4


class BareRelay:
    """Counts frames, and tells one WebSocket client of each: `{"volume": 1}`, 2, and so on."""

    name = "bare-relay"

    async def run(self, started: Started) -> None:
        """Serve on two free ports until cancelled."""
        frames: asyncio.Queue[int] = asyncio.Queue()
        count = 0

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    prefix = await reader.readexactly(_PREFIX_BYTES)
                    await reader.readexactly(int.from_bytes(prefix, "big"))
                    count += 1
                    frames.put_nowait(count)
            writer.close()

        async def tell(client: web.WebSocketResponse) -> None:
            while True:
                await client.send_str(f'{{"volume":{await frames.get()}}}')

        async def serve(request: web.Request) -> web.WebSocketResponse:
            client = web.WebSocketResponse(compress=False)
            await client.prepare(request)
            telling = asyncio.create_task(tell(client))
            async for _ in client:
                pass
            telling.cancel()
            return client

        app = web.Application()
        app.router.add_get("/ws/marketdata", serve)
        async with contextlib.AsyncExitStack() as stack:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            ingest = await stack.enter_async_context(
                await asyncio.start_server(take, "127.0.0.1", 0)
            )
            started(
                {
                    "tcp": address_of(ingest),
                    "http": format_address(*runner.addresses[0][:2]),
                }
            )
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    sys.exit(run_service(BareRelay()))
