"""Which web pages may use the gateway: its own, and those of the origins that are allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from mdtool.core.errors import ConfigError, MdtoolError
from mdtool.services.http.answers import Handler

EVERY_ORIGIN: Final = "*"
_METHODS: Final = "GET, HEAD, POST"
_HEADERS: Final = "Content-Type"
_EXPOSED: Final = "Warning, Retry-After, RateLimit, RateLimit-Policy"
_PREFLIGHT_KEPT_S: Final = 600


class ForeignOriginError(MdtoolError):
    """A page of an origin that is not allowed asks for something."""


class Origins:
    """The rules about the header `Origin`, which browsers send and pages cannot change.

    Requests without it, those of other programs and of pages that only show something, pass.

    Parameters
    ----------
    allowed : iterable of str
        Such as `https://charts.example.com`, each in addition to the gateway's own; or
        EVERY_ORIGIN.

    Attributes
    ----------
    refused : int
        Requests that were turned away.

    Raises
    ------
    ConfigError
        When one is no origin.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self.refused = 0
        self._allowed = frozenset(map(_parse_origin, allowed))

    def check(self, origin: str, host: str) -> None:
        """Let a request pass.

        Parameters
        ----------
        origin, host : str
            Its headers. The scheme is not compared: proxies take TLS off.

        Raises
        ------
        ForeignOriginError
            When its page may not ask.
        """
        if origin.partition("://")[2].lower() == host.lower() or self._allows(origin):
            return
        self.refused += 1
        raise ForeignOriginError("pages of this origin may not use the gateway")

    def mount(self, app: web.Application) -> None:
        """Have an application tell browsers what is allowed, where more than its own pages are."""
        if self._allowed:
            app.on_response_prepare.append(self._tell)

    def preflight(self, otherwise: Handler) -> Handler:
        """Return a handler of OPTIONS, which browsers ask first; another one takes the rest."""

        async def run(request: web.Request) -> web.StreamResponse:
            headers = request.headers
            if request.method != "OPTIONS" or "Access-Control-Request-Method" not in headers:
                return await otherwise(request)
            return web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": _METHODS,
                    "Access-Control-Allow-Headers": _HEADERS,
                    "Access-Control-Max-Age": str(_PREFLIGHT_KEPT_S),
                },
            )

        return run

    def _allows(self, origin: str) -> bool:
        return EVERY_ORIGIN in self._allowed or origin.lower() in self._allowed

    async def _tell(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        headers, origin = response.headers, request.headers.get("Origin")
        headers.add("Vary", "Origin")
        if origin is not None and self._allows(origin):
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED


def parse_origins(text: str) -> list[str]:
    """Return the origins of a list with commas, which may be empty."""
    return [origin.strip() for origin in text.split(",") if origin.strip()]


def _parse_origin(text: str) -> str:
    if text == EVERY_ORIGIN:
        return text
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or text != f"{parts.scheme}://{parts.netloc}":
        raise ConfigError(f"allowed_origins: {text!r} is no origin such as https://example.com")
    return text.lower()
