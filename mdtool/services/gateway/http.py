"""HTTP requests of the gateway: admitted with their client, timed, and their errors answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from mdtool.adapters.book_services import ServiceTimeoutError, ServiceUnavailableError
from mdtool.adapters.market import (
    RefusedError,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.core.errors import ConfigError, MdtoolError
from mdtool.services.client import (
    Admission,
    CapacityError,
    Client,
    LimitError,
    client_address,
)
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.times import RouteTimes
from mdtool.services.http.answers import (
    IDENTIFY,
    Admit,
    Fail,
    Handler,
    HeadedError,
    Statuses,
    answering,
    failure,
    no_route,
)
from mdtool.services.http.bodies import BodyError

EVERY_ORIGIN: Final = "*"
STALE_HEADERS: Final = {"Warning": '110 mdtool "Response is Stale"'}
_METHODS: Final = "GET, HEAD, POST"
_HEADERS: Final = "Content-Type"
_EXPOSED: Final = "Warning, Retry-After, RateLimit, RateLimit-Policy"
_PREFLIGHT_AGE_S: Final = 600


class ForeignOriginError(MdtoolError):
    """A request is from a page of an origin that is not allowed."""


class UpgradeRequiredError(HeadedError):
    """A request is not a valid one for a WebSocket, which its path requires."""


STATUSES: Final[Statuses] = {
    ParameterError: (400, "bad_parameter"),
    BodyError: (400, "bad_body"),
    RefusedError: (400, "bad_parameter"),
    ForeignOriginError: (403, "foreign_origin"),
    UpgradeRequiredError: (426, "upgrade_required"),
    LimitError: (429, "too_many_requests"),
    UnknownSymbolError: (404, "not_found"),
    CapacityError: (503, "unavailable"),
    UnavailableError: (503, "unavailable"),
    ServiceUnavailableError: (503, "unavailable"),
    UnansweredError: (504, "timeout"),
    ServiceTimeoutError: (504, "timeout"),
}
"""The status and code of each error that is a client's or another service's fault."""


def address_of(request: web.Request, proxies: int) -> str:
    """Return what stands for an anonymous client: its IPv4 address, or its IPv6 network.

    Parameters
    ----------
    request : web.Request
    proxies : int
        How many proxies are in front of the gateway. Each appends its client to
        `X-Forwarded-For`; a client can forge whatever precedes that.
    """
    if proxies:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        if len(forwarded) >= proxies:
            return client_address(forwarded[-proxies].strip())
    return client_address(request.remote or "")


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

    def check(self, origin: str, host: str) -> None:
        """Allow a request.

        Parameters
        ----------
        origin, host : str
            Its headers. The scheme is not compared, for proxies terminate TLS.

        Raises
        ------
        ForeignOriginError
            When its page may not use the gateway.
        """
        if origin.partition("://")[2].lower() == host.lower() or self._allows(origin):
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
                    "Access-Control-Allow-Headers": _HEADERS,
                    "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
                },
            )

        return run

    def _allows(self, origin: str) -> bool:
        return EVERY_ORIGIN in self._allowed or origin.lower() in self._allowed

    async def _add_headers(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        headers, origin = response.headers, request.headers.get("Origin")
        headers.add("Vary", "Origin")
        if origin is not None and self._allows(origin):
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED


def _parse_origin(text: str) -> str:
    if text == EVERY_ORIGIN:
        return text
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or text != f"{parts.scheme}://{parts.netloc}":
        raise ConfigError(
            f"allowed_origins: {text!r} is not a valid origin; write one as https://example.com"
        )
    return text.lower()


class Routes:
    """The gateway's routes. Each request is admitted before its handler runs.

    Admission is part of the wrapper that each handler has anyway: an aiohttp middleware that does
    nothing takes 9 % of the requests a second that a bare handler answers.

    Parameters
    ----------
    admission : Admission
    origins : Origins
    proxies : int
        See `address_of`.

    Attributes
    ----------
    admission : Admission
    app : web.Application
    times : dict of str to RouteTimes
        By path.
    """

    def __init__(self, admission: Admission, origins: Origins, proxies: int) -> None:
        self.app = web.Application()
        self.app[IDENTIFY] = self._identify
        self.times: dict[str, RouteTimes] = {}
        self.admission = admission
        self._origins = origins
        self._proxies = proxies

    @property
    def refused(self) -> Mapping[str, int]:
        """How many requests were rejected, by limit."""
        return {**self.admission.refused, "origins": self._origins.refused}

    def add(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        is_limited: bool = True,
        has_head: bool = True,
        fail: Fail = failure,
        place: Callable[[Handler], Handler] | None = None,
    ) -> None:
        """Have a handler answer a method of a path.

        Parameters
        ----------
        method, path : str
            As aiohttp's router takes them; of paths that overlap the longer one first.
        handler : callable
        is_limited : bool
            Whether requests count against the client's limit; those of monitoring do not.
        has_head : bool
            Whether GET implies HEAD; not where the handler writes the body by itself.
        fail : callable
            Makes the answer of an error.
        place : callable, optional
            Wraps what answers and counts requests, for some to be answered elsewhere.
        """
        admit: Admit = self._admit if is_limited else self._check_origin
        times = self.times.setdefault(path, RouteTimes())
        wrapped = answering(handler, STATUSES, times.add, admit, fail)
        if place is not None:
            wrapped = place(wrapped)
        self.app.router.add_route(method, path, wrapped)
        if method == "GET" and has_head:
            self.app.router.add_route("HEAD", path, wrapped)

    def finish(self, fail_of: Callable[[str], Fail]) -> None:
        """Answer what no route does, after all of them were added.

        Parameters
        ----------
        fail_of : callable
            Returns what makes the answer of an error below a path.
        """

        async def otherwise(request: web.Request) -> web.StreamResponse:
            return await no_route(request, fail_of(request.path))

        handler = self._origins.preflight(otherwise)
        everything = answering(handler, STATUSES, admit=self._admit)
        self.app.router.add_route("*", "/{path:.*}", everything)
        self._origins.mount(self.app)

    def _admit(self, request: web.Request) -> None:
        """Admit a request that counts; raise ForeignOriginError or LimitError."""
        self._check_origin(request)
        # A Client, which few of them need, takes as long as the rest of this.
        self.admission.requests.spend(address_of(request, self._proxies))

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            self._origins.check(origin, request.host)

    def _identify(self, request: web.Request) -> Client:
        return self.admission.client(address_of(request, self._proxies))
