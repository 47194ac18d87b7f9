"""A server of the pages' files, whose `/stream` and answers a test speaks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from importlib import resources

from aiohttp import WSMsgType, web

STATIC = resources.files("mdtool.services.gateway.pages") / "static"
EMPTY = '<!doctype html><base href="/"><link rel="icon" href="data:,"><title>a client</title>'


def dashboard() -> str:
    """The first page, without its library of charts."""
    return page_of("dashboard.html")


def page_of(name: str) -> str:
    """A page, without the files of others."""
    text = (STATIC / name).read_text("utf-8")
    return text.replace("<!-- base -->", '<base href="/">').replace("<!-- assets -->", "")


class PageServer:
    """The server.

    Attributes
    ----------
    answers : dict of str to str or callable
        The text of each path below `/`, such as `health` and `api/v2/aggregates`, or what returns
        it at each request.
    statuses : dict of str to int
        The status of a path, where that is not 200.
    sockets, requests : asyncio.Queue
        Connections to `/stream`, and what they requested.
    """

    def __init__(self, page: str = EMPTY) -> None:
        self.answers: dict[str, str | Callable[[], str]] = {}
        self.statuses: dict[str, int] = {}
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self.requests: asyncio.Queue[dict] = asyncio.Queue()
        self.app = web.Application()
        self.app.router.add_get("/", self._page)
        self.app.router.add_get("/stream", self._stream)
        self.app.router.add_static("/static", str(STATIC))
        self.app.router.add_get("/{path:.+}", self._answer)
        self._text = page

    async def subscription(self, channel: str) -> int:
        """The id of the next request for a channel; those for others are passed over."""
        while (request := await self.requests.get()).get("channel") != channel:
            pass
        return request["id"]

    def tell(self, path: str, content: object) -> None:
        """Let a path answer with JSON."""
        self.answers[path] = json.dumps(content)

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._text, content_type="text/html")

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        text = self.answers.get(path, '{"data":[],"next":null}')
        text = text if isinstance(text, str) else text()
        status = self.statuses.get(path, 200)
        return web.Response(text=text, status=status, content_type="application/json")

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.put_nowait(socket)
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            self.requests.put_nowait(message.json())
        return socket
