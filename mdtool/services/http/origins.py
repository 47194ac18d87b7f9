"""The rules about origins: which pages are own, who else may use the gateway, and CORS headers."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from mdtool.core.errors import ConfigError, MdtoolError
from mdtool.services.http.answers import Handler

EVERY_ORIGIN: Final = "*"
_METHODS: Final = "GET, HEAD, POST"
_HEADERS: Final = "Authorization, Content-Type"
_EXPOSED: Final = "Warning, Retry-After, RateLimit, RateLimit-Policy"
_PREFLIGHT_AGE_S: Final = 600
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+( *, *[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")
_MAX_HEADER_NAMES_CHARS: Final = 1_000


class ForeignOriginError(MdtoolError):
    """A request is from a page of an origin that is not allowed."""


class Origins:
    """The rules about the header `Origin`, which browsers send and pages cannot change.

    Requests without it, from other programs and from plain navigation, are allowed.

    Parameters
    ----------
    text : str
        Allowed origins with commas, such as `https://charts.example.com`, in addition to the
        gateway's own; or EVERY_ORIGIN.

    Attributes
    ----------
    refused : int
        Requests rejected.

    Raises
    ------
    ConfigError
        When one is not a valid origin.
    """

    def __init__(self, text: str) -> None:
        self.refused = 0
        origins = (origin.strip() for origin in text.split(","))
        self._allowed = frozenset(_parse_origin(origin) for origin in origins if origin)

    @property
    def sources(self) -> str:
        """The allowed origins, the gateway's own first, as a Content-Security-Policy names them."""
        return " ".join(("'self'", *sorted(self._allowed)))

    def check(self, origin: str, host: str) -> None:
        """Allow a request.

        Parameters
        ----------
        origin, host : str
            Its headers.

        Raises
        ------
        ForeignOriginError
            When its page may not use the gateway.
        """
        if is_own(origin, host) or self._allows(origin):
            return
        self.refused += 1
        raise ForeignOriginError(
            "origin: pages of this origin may not use the gateway; add it to allowed_origins"
        )

    def mount(self, app: web.Application) -> None:
        """Have an application send CORS headers, where other origins than its own are allowed."""
        if self._allowed:
            app.on_response_prepare.append(self._add_headers)

    def preflight(self, otherwise: Handler) -> Handler:
        """Return a handler that answers preflight requests, and has another one do the rest."""

        async def run(request: web.Request) -> web.StreamResponse:
            headers = request.headers
            if request.method != "OPTIONS" or "Access-Control-Request-Method" not in headers:
                return await otherwise(request)
            return web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": _METHODS,
                    "Access-Control-Allow-Headers": _requested_headers(request),
                    "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
                    "Vary": "Access-Control-Request-Headers",
                },
            )

        return run

    def _allows(self, origin: str) -> bool:
        return EVERY_ORIGIN in self._allowed or _normalized(origin) in self._allowed

    async def _add_headers(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        headers, origin = response.headers, request.headers.get(hdrs.ORIGIN)
        headers.add("Vary", "Origin")
        if origin is None or not self._allows(origin):
            return
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        if _normalized(origin) in self._allowed:
            # Not for every origin: any page could then use what its visitor is signed in to.
            headers["Access-Control-Allow-Credentials"] = "true"


def is_own(origin: str, host: str) -> bool:
    """Return whether a page of an origin came from the host that it makes a request to.

    The scheme is not compared, for proxies terminate TLS; it only says which port either of them
    means where it has none.
    """
    scheme, _, place = origin.partition("://")
    return _with_port(place, scheme) == _with_port(host, scheme)


def _requested_headers(request: web.Request) -> str:
    """Return the headers that a page may send: those that its browser asks about."""
    names = request.headers.get("Access-Control-Request-Headers", "").strip()
    is_valid = len(names) <= _MAX_HEADER_NAMES_CHARS and _HEADER_NAMES.fullmatch(names)
    return names if is_valid else _HEADERS


def _normalized(origin: str) -> str:
    """Return an origin in lower case and without a port that its scheme implies."""
    scheme, _, place = origin.lower().partition("://")
    return f"{scheme}://{place.removesuffix(f':{_DEFAULT_PORTS.get(scheme)}')}"


def _with_port(place: str, scheme: str) -> str:
    """Return HOST:PORT in lower case."""
    has_port = ":" in place.rpartition("]")[2]
    default = _DEFAULT_PORTS.get(scheme.lower(), "")
    return place.lower() if has_port else f"{place.lower()}:{default}"


def _parse_origin(text: str) -> str:
    if text == EVERY_ORIGIN:
        return text
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or text != f"{parts.scheme}://{parts.netloc}":
        raise ConfigError(
            f"allowed_origins: {text!r} is not a valid origin; write one as https://example.com"
        )
    return _normalized(text)
