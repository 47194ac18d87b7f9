"""`/openapi.json`, and `/docs`: Swagger UI, which shows that document."""

from __future__ import annotations

from importlib import resources
from typing import Any

from aiohttp import web

from mdtool.services.gateway.pages.assets import PLACEHOLDER, Assets
from mdtool.services.gateway.protocols import Paths
from mdtool.services.http.answers import answer, encode_object


class Docs:
    """The handlers of the documentation's paths.

    Parameters
    ----------
    document : dict
        The OpenAPI document.
    assets : Assets
        Where Swagger UI comes from.
    """

    def __init__(self, document: dict[str, Any], assets: Assets) -> None:
        self._document = encode_object(document)
        page = resources.files("mdtool.services.gateway.pages").joinpath("static/docs.html")
        self._page = page.read_text("utf-8").replace(PLACEHOLDER, assets.tags("swagger-ui"))
        origin = assets.origin
        self._headers = {
            "Cache-Control": "no-cache",
            # Swagger UI styles its elements itself and draws arrows from data: URLs.
            "Content-Security-Policy": (
                f"default-src 'self'; script-src 'self' {origin}; "
                f"style-src 'self' 'unsafe-inline' {origin}; "
                "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
            ),
            "X-Content-Type-Options": "nosniff",
        }

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        return {("GET", "/openapi.json"): self.document, ("GET", "/docs"): self.page}

    async def document(self, _request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        return answer(self._document)

    async def page(self, _request: web.Request) -> web.Response:
        """`GET /docs`."""
        return web.Response(text=self._page, content_type="text/html", headers=self._headers)
