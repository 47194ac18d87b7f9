"""`/openapi.json` and `/docs`, which shows it: Swagger UI, whose assets come out of a package.

Of the packages that carry them `fastapi-swagger` follows Swagger UI's own releases. Only its files
are used: it is not imported.
"""

from __future__ import annotations

from importlib import metadata, resources
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from mdtool.services.http.answers import answer, encode_object, failure

_PACKAGE: Final = "fastapi-swagger"
_ASSETS: Final = "fastapi_swagger/resources"
_FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    # Swagger UI styles its elements itself and draws arrows out of data: URLs.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Docs:
    """The handlers of the documentation's paths.

    Parameters
    ----------
    document : dict
        The OpenAPI document.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = encode_object(document)
        static = resources.files("mdtool.services.gateway") / "static"
        self._page = (static / "docs.html").read_bytes()
        folder = Path(str(metadata.distribution(_PACKAGE).locate_file(_ASSETS)))
        self._paths = {name: folder / name for name in _FILES}

    async def document(self, _request: web.Request) -> web.Response:
        """`GET /openapi.json`."""
        return answer(self._document)

    async def page(self, _request: web.Request) -> web.Response:
        """`GET /docs`."""
        return web.Response(
            body=self._page, content_type="text/html", charset="utf-8", headers=_HEADERS
        )

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """`GET /docs/{name}`."""
        name = request.match_info["name"]
        if name not in _FILES:
            return failure(404, "not_found", f"there is nothing at {request.path}")
        headers = {**_HEADERS, "Content-Type": _FILES[name]}
        return web.FileResponse(self._paths[name], headers=headers)
