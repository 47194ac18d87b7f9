"""The least that answers a page of trades: one handler, which asks sqlite3 and waits for it.

Run as a module, with the path of a store as its argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from typing import Any, Final

from aiohttp import web

from mdtool.core.addresses import format_address
from mdtool.core.lifecycle import Started, run_service
from mdtool.core.units import format_price, format_time

_PAGE: Final = """
SELECT timestamp, price, volume FROM trades
WHERE symbol = (SELECT number FROM symbols WHERE symbol = ?)
ORDER BY timestamp DESC, stream DESC, sequence DESC LIMIT ?
"""


class BareHistory:
    """Answers `GET /api/v1/trades/{symbol}?limit=` with the newest trades, and no cursor.

    Parameters
    ----------
    path : str
        The file of a store.
    """

    name = "bare-history"

    def __init__(self, path: str) -> None:
        self._path = path

    async def run(self, started: Started) -> None:
        """Serve on a free port until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            connection = sqlite3.connect(self._path)
            stack.callback(connection.close)

            async def answer(request: web.Request) -> web.Response:
                asked = (request.match_info["symbol"], int(request.query["limit"]))
                return web.json_response(_envelope(connection.execute(_PAGE, asked).fetchall()))

            app = web.Application()
            app.router.add_get("/api/v1/trades/{symbol}", answer)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            started({"http": format_address(*runner.addresses[0][:2])})
            await asyncio.get_running_loop().create_future()


def _envelope(rows: list[tuple[int, int, int]]) -> dict[str, Any]:
    trades = [
        {"timestamp": format_time(time), "price": format_price(price), "volume": str(volume)}
        for time, price, volume in rows
    ]
    data = {"data": trades, "pagination": {"next_cursor": None}}
    return {"data": data, "error": None, "message": None}


if __name__ == "__main__":
    sys.exit(run_service(BareHistory(sys.argv[1])))
