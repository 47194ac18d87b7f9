"""HTTP requests of the gateway: admitted with their client, timed, and their errors answered."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from aiohttp import hdrs, web

from mdtool.adapters.book_services import ServiceTimeoutError, ServiceUnavailableError
from mdtool.adapters.market import (
    RefusedError,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.services.client import Admission, Client
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.proxies import Proxies
from mdtool.services.http.answers import (
    ANYBODY,
    IDENTIFY,
    Admit,
    Fail,
    Handler,
    HeadedError,
    Statuses,
    answering,
    failure,
    no_route,
    traced,
)
from mdtool.services.http.bodies import BodyError
from mdtool.services.http.entry import ENTRY_STATUSES, OPEN, Policy, enter, metered
from mdtool.services.http.origins import ForeignOriginError, Origins
from mdtool.services.limits import CapacityError
from mdtool.services.times import RouteTimes

STALE_HEADERS: Final = {"Warning": '110 mdtool "Response is Stale"'}


class UpgradeRequiredError(HeadedError):
    """A request is not a valid one for a WebSocket, which its path requires."""


STATUSES: Final[Statuses] = {
    **ENTRY_STATUSES,
    ParameterError: (400, "bad_parameter"),
    BodyError: (400, "bad_body"),
    RefusedError: (400, "bad_parameter"),
    ForeignOriginError: (403, "foreign_origin"),
    UpgradeRequiredError: (426, "upgrade_required"),
    UnknownSymbolError: (404, "not_found"),
    CapacityError: (503, "unavailable"),
    UnavailableError: (503, "unavailable"),
    ServiceUnavailableError: (503, "unavailable"),
    UnansweredError: (504, "timeout"),
    ServiceTimeoutError: (504, "timeout"),
}
"""The status and code of each error that is a client's or another service's fault."""


class Routes:
    """The gateway's routes. Each request is admitted before its handler runs.

    Admission is part of the wrapper that each handler has anyway: an aiohttp middleware that does
    nothing takes 9 % of the requests a second that a bare handler answers.

    Parameters
    ----------
    admission : Admission
    origins : Origins
    proxies : Proxies
        Every route is served below their base path, too.

    Attributes
    ----------
    admission : Admission
    app : web.Application
    times : dict of str to RouteTimes
        By path.
    is_stopping : bool
        Whether load balancers should send requests elsewhere, for this gateway is about to stop.
    """

    def __init__(self, admission: Admission, origins: Origins, proxies: Proxies) -> None:
        self.app = web.Application()
        self.app[IDENTIFY] = self._identify
        self.app[ANYBODY] = admission.client("")
        self.times: dict[str, RouteTimes] = {}
        self.admission = admission
        self.is_stopping = False
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
        policy: Policy,
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
        policy : Policy
            Who may request it, where clients authenticate.
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
        if self.admission.security is not None:
            admit = functools.partial(self._enter, policy, is_limited)
        if self.admission.is_metered:
            handler = metered(handler)
        times = self.times.setdefault(path, RouteTimes())
        wrapped = answering(handler, STATUSES, times.add, admit, fail)
        if is_limited:
            wrapped = traced(wrapped, path)
        if place is not None:
            wrapped = place(wrapped)
        for each in self._paths_of(path):
            self.app.router.add_route(method, each, wrapped)
            if method == "GET" and has_head:
                self.app.router.add_route("HEAD", each, wrapped)

    def finish(self, fail_of: Callable[[str], Fail]) -> None:
        """Answer what no route does, after all of them were added.

        Parameters
        ----------
        fail_of : callable
            Returns what makes the answer of an error below a path.
        """

        async def otherwise(request: web.Request) -> web.StreamResponse:
            return await no_route(
                request, fail_of(request.path.removeprefix(self._proxies.base_path))
            )

        handler = self._origins.preflight(otherwise)
        admit: Admit = self._admit
        if self.admission.security is not None:
            admit = functools.partial(self._enter, OPEN, True)
        everything = answering(handler, STATUSES, admit=admit)
        self.app.router.add_route("*", "/{path:(?s:.*)}", everything)
        self._origins.mount(self.app)

    def _paths_of(self, path: str) -> Iterator[str]:
        """Yield where a path is served, as aiohttp's router takes it."""
        # Symbols may have slashes, and some proxies decode %2F.
        path = path.replace("{symbol}", "{symbol:(?s:.+)}")
        yield path
        if base_path := self._proxies.base_path:
            yield base_path + path
            if path == "/":
                yield base_path

    def _admit(self, request: web.Request) -> None:
        """Admit a request that counts; raise ForeignOriginError or LimitError."""
        self._check_origin(request)
        # A Client, which few of them need, takes as long as the rest of this.
        self.admission.requests.spend(self._proxies.client_of(request))

    def _enter(
        self, policy: Policy, is_limited: bool, request: web.Request
    ) -> Awaitable[None] | None:
        """Admit a request where clients authenticate; see `enter`."""
        self._check_origin(request)
        return enter(request, self.app[IDENTIFY](request), policy, is_limited=is_limited)

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None:
            self._origins.check(origin, request.host)

    def _identify(self, request: web.Request) -> Client:
        return self.admission.client(self._proxies.client_of(request))
