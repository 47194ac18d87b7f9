"""The pages: static files, and those that load files of third parties."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from aiohttp import web

from mdtool.services.gateway.pages.assets import TAGS_MARK, Assets
from mdtool.services.gateway.protocols import Paths
from mdtool.services.gateway.proxies import Proxies
from mdtool.services.http.answers import answer, encode_object, failure

_FOLDER: Final = resources.files("mdtool.services.gateway.pages") / "static"

_BASE: Final = "<!-- base -->"
"""In each page, where the path goes that its links are relative to."""
_CONTENT_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def _headers(policy: str, ancestors: str = "'none'") -> dict[str, str]:
    """Return the headers of a page with a policy of its content, and who may show it in a frame."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": f"{policy}; base-uri 'self'; frame-ancestors {ancestors}",
        "X-Content-Type-Options": "nosniff",
    }


class _Page:
    """A page, whose links are relative to the path below which its client sees the gateway."""

    def __init__(self, text: str, headers: Mapping[str, str], proxies: Proxies) -> None:
        self._text = text
        self._headers = headers
        self._proxies = proxies

    async def page(self, request: web.Request) -> web.Response:
        """Answer with the page."""
        base = f'<base href="{self._proxies.base_of(request)}/">'
        text = self._text.replace(_BASE, base)
        return web.Response(text=text, content_type="text/html", headers=self._headers)


class _Application(_Page):
    """A page with a library of `LIBRARIES`, whose files its tags name."""

    def __init__(
        self, name: str, library: str, assets: Assets, headers: Mapping[str, str], proxies: Proxies
    ) -> None:
        text = (_FOLDER / name).read_text("utf-8").replace(TAGS_MARK, assets.tags(library))
        super().__init__(text, headers, proxies)


class Dashboard(_Application):
    """`GET /`: a watchlist, and one symbol of it with a chart.

    Parameters
    ----------
    assets : Assets
        Where the library of charts comes from; the page loads it once it shows a chart.
    proxies : Proxies
    """

    def __init__(self, assets: Assets, proxies: Proxies) -> None:
        policy = f"default-src 'self'; script-src 'self' {assets.origin}"
        headers = _headers(policy)
        super().__init__("dashboard.html", "lightweight-charts", assets, headers, proxies)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/"): self.page}


class GraphiQL(_Application):
    """`GET /graphiql`: a page on which to write and run operations.

    Parameters
    ----------
    assets : Assets
        Where GraphiQL comes from.
    proxies : Proxies
    """

    def __init__(self, assets: Assets, proxies: Proxies) -> None:
        origin = assets.origin
        policy = (
            f"default-src 'none'; script-src 'self' {origin}; "
            f"style-src 'self' 'unsafe-inline' {origin}; font-src 'self' data: {origin}; "
            "img-src 'self' data:; connect-src 'self' ws: wss:; form-action 'none'"
        )
        super().__init__("graphiql.html", "graphiql", assets, _headers(policy), proxies)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/graphiql"): self.page}


class Docs(_Application):
    """`GET /openapi.json`, and `GET /docs`: Swagger UI, which shows that document.

    Parameters
    ----------
    document : dict
        The OpenAPI document.
    assets : Assets
        Where Swagger UI comes from.
    proxies : Proxies
    """

    def __init__(self, document: dict[str, Any], assets: Assets, proxies: Proxies) -> None:
        self._document = document
        # Swagger UI styles its elements itself and draws arrows from data: URLs.
        policy = (
            f"default-src 'self'; script-src 'self' {assets.origin}; "
            f"style-src 'self' 'unsafe-inline' {assets.origin}; img-src 'self' data:"
        )
        super().__init__("docs.html", "swagger-ui", assets, _headers(policy), proxies)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/openapi.json"): self.document, ("GET", "/docs"): self.page}

    async def document(self, request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        servers = [{"url": self._proxies.base_of(request) or "/"}]
        return answer(encode_object({**self._document, "servers": servers}))


class SockJsFrame(_Application):
    """`GET /ws/iframe.html`: what SockJS clients of other origins show in a frame.

    Through it they reach transports that browsers bind to an origin.

    Parameters
    ----------
    assets : Assets
        Where the client of SockJS comes from.
    proxies : Proxies
    ancestors : str
        The origins whose pages may show it, as a Content-Security-Policy names them.
    """

    def __init__(self, assets: Assets, proxies: Proxies, ancestors: str) -> None:
        policy = f"default-src 'none'; script-src 'self' {assets.origin}; connect-src 'self'"
        headers = _headers(policy, ancestors)
        super().__init__("sockjs-iframe.html", "sockjs", assets, headers, proxies)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/ws/iframe{version:[0-9A-Za-z_.-]*}.html"): self.page}


class StaticFiles:
    """The static files, in memory.

    Parameters
    ----------
    proxies : Proxies
    """

    def __init__(self, proxies: Proxies) -> None:
        self._files = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if file.is_file()}
        self._headers = _headers("default-src 'self'")
        self._pages = {
            name: _Page(content.decode(), self._headers, proxies)
            for name, content in self._files.items()
            if name.endswith(".html")
        }

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {
            ("GET", "/book"): self.book,
            ("GET", "/demo/{name}"): self.demo,
            ("GET", "/static/{name}"): self.file,
        }

    async def book(self, request: web.Request) -> web.Response:
        """`GET /book`: the order book."""
        return await self._pages["book.html"].page(request)

    async def demo(self, request: web.Request) -> web.Response:
        """`GET /demo/{name}`: a page on which to try a protocol."""
        page = self._pages.get(f"demo-{request.match_info['name']}.html")
        if page is None:
            return failure(404, "not_found", f"there is nothing at {request.path}")
        return await page.page(request)

    async def file(self, request: web.Request) -> web.Response:
        """`GET /static/{name}`."""
        name = request.match_info["name"]
        if name not in self._files:
            return failure(404, "not_found", f"there is nothing at {request.path}")
        return web.Response(
            body=self._files[name],
            content_type=_CONTENT_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers=self._headers,
        )
