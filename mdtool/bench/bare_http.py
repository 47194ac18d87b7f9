"""The least that an aiohttp server can be: one handler, which always answers the same bytes.

Run as a module, with the answer as its argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from aiohttp import web

from mdtool.core.addresses import format_address
from mdtool.core.lifecycle import Started, run_service


class BareHttp:
    """Answers `GET /api/v1/marketdata/{symbol}`.

    Parameters
    ----------
    body : bytes
        What it answers, JSON.
    """

    name = "bare-http"

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""
        body = self._body

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        app = web.Application()
        app.router.add_get("/api/v1/marketdata/{symbol}", answer)
        async with contextlib.AsyncExitStack() as stack:
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            started({"http": format_address(*runner.addresses[0][:2])})
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    sys.exit(run_service(BareHttp(sys.argv[1].encode())))
