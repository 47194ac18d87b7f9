"""The pages: static files, and two that are third-party applications."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from aiohttp import web

from mdtool.services.gateway.pages.assets import PLACEHOLDER, Assets
from mdtool.services.gateway.protocols import Paths
from mdtool.services.http.answers import answer, encode_object, failure

_FOLDER: Final = resources.files("mdtool.services.gateway.pages") / "static"

_CONTENT_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


def _headers(policy: str) -> dict[str, str]:
    """Return the headers of a page with a Content-Security-Policy."""
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": f"{policy}; base-uri 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
    }


class _Application:
    """A page that is a third-party application, whose files the page's tags name."""

    def __init__(self, name: str, library: str, assets: Assets, policy: str) -> None:
        page = (_FOLDER / name).read_text("utf-8")
        self._page = page.replace(PLACEHOLDER, assets.tags(library))
        self._headers = _headers(policy)

    async def page(self, _request: web.Request) -> web.Response:
        """Answer with the page."""
        return web.Response(text=self._page, content_type="text/html", headers=self._headers)


class GraphiQL(_Application):
    """`GET /graphiql`: a page on which to write and run operations.

    Parameters
    ----------
    assets : Assets
        Where GraphiQL comes from.
    """

    def __init__(self, assets: Assets) -> None:
        origin = assets.origin
        policy = (
            f"default-src 'none'; script-src 'self' {origin}; "
            f"style-src 'self' 'unsafe-inline' {origin}; font-src 'self' data: {origin}; "
            "img-src 'self' data:; connect-src 'self' ws: wss:; form-action 'none'"
        )
        super().__init__("graphiql.html", "graphiql", assets, policy)

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
    """

    def __init__(self, document: dict[str, Any], assets: Assets) -> None:
        self._document = encode_object(document)
        # Swagger UI styles its elements itself and draws arrows from data: URLs.
        policy = (
            f"default-src 'self'; script-src 'self' {assets.origin}; "
            f"style-src 'self' 'unsafe-inline' {assets.origin}; img-src 'self' data:"
        )
        super().__init__("docs.html", "swagger-ui", assets, policy)

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/openapi.json"): self.document, ("GET", "/docs"): self.page}

    async def document(self, _request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        return answer(self._document)


class StaticFiles:
    """The static files, in memory."""

    def __init__(self) -> None:
        self._files = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if file.is_file()}
        self._headers = _headers("default-src 'self'")

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
            body=self._files[name],
            content_type=content_type,
            charset="utf-8",
            headers=self._headers,
        )
