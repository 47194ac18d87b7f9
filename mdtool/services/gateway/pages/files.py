"""The static files of the pages."""

from __future__ import annotations

from importlib import resources
from typing import Final

from aiohttp import web

from mdtool.services.gateway.protocols import Paths
from mdtool.services.http.answers import failure

_CONTENT_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class StaticFiles:
    """The static files, in memory."""

    def __init__(self) -> None:
        folder = resources.files("mdtool.services.gateway.pages") / "static"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("GET", "/"): self.index,
            ("GET", "/demo/{name}"): self.demo,
            ("GET", "/static/{name}"): self.file,
        }

    async def index(self, _request: web.Request) -> web.Response:
        """`GET /`: the order book."""
        return self._answer("index.html")

    async def demo(self, request: web.Request) -> web.Response:
        """`GET /demo/{name}`: a page on which to try a protocol."""
        name = f"demo-{request.match_info['name']}.html"
        if name not in self._files:
            return failure(404, "not_found", f"there is nothing at {request.path}")
        return self._answer(name)

    async def file(self, request: web.Request) -> web.Response:
        """`GET /static/{name}`."""
        name = request.match_info["name"]
        if name not in self._files:
            return failure(404, "not_found", f"there is nothing at {request.path}")
        return self._answer(name)

    def _answer(self, name: str) -> web.Response:
        content_type = _CONTENT_TYPES[name.rpartition(".")[2]]
        return web.Response(
            body=self._files[name], content_type=content_type, charset="utf-8", headers=_HEADERS
        )
