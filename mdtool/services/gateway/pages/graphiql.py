"""`GET /graphiql`: GraphiQL, a page on which to write and run operations."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from mdtool.services.gateway.pages.assets import PLACEHOLDER, Assets
from mdtool.services.gateway.protocols import Paths


class GraphiQL:
    """The page.

    Parameters
    ----------
    assets : Assets
        Where GraphiQL comes from.
    """

    def __init__(self, assets: Assets) -> None:
        page = resources.files("mdtool.services.gateway.pages").joinpath("static/graphiql.html")
        self._page = page.read_text("utf-8").replace(PLACEHOLDER, assets.tags("graphiql"))
        origin = assets.origin
        self._headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": (
                f"default-src 'none'; script-src 'self' {origin}; "
                f"style-src 'self' 'unsafe-inline' {origin}; font-src 'self' data: {origin}; "
                "img-src 'self' data:; connect-src 'self' ws: wss:; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
        }

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/graphiql"): self.page}

    async def page(self, _request: web.Request) -> web.Response:
        """`GET /graphiql`."""
        return web.Response(text=self._page, content_type="text/html", headers=self._headers)
