"""What every request passes before its handler: whose it is, from which page, one too many or not.

It is called within the wrapper that routes have anyway: an aiohttp middleware that does nothing
takes 9 % of the requests a second that a bare handler answers.
"""

from __future__ import annotations

from aiohttp import web

from mdtool.services.gateway.clients import CLIENT, client_of
from mdtool.services.gateway.limits import RequestLimit
from mdtool.services.gateway.origins import Origins


class Guard:
    """Admits requests.

    Parameters
    ----------
    origins : Origins
        Whose pages may ask.
    requests : RequestLimit
        How often each client may.
    proxies : int
        How many of them stand before the gateway.
    """

    def __init__(self, origins: Origins, requests: RequestLimit, proxies: int) -> None:
        self._origins = origins
        self._requests = requests
        self._proxies = proxies

    def admit(self, request: web.Request) -> None:
        """Let a request pass.

        Raises
        ------
        ForeignOriginError, LimitError
        """
        self._requests.spend(self.admit_watcher(request))

    def admit_watcher(self, request: web.Request) -> str:
        """Let a request pass by which the gateway is watched, and return whose it is.

        Raises
        ------
        ForeignOriginError
        """
        origin = request.headers.get("Origin")
        if origin is not None:
            self._origins.check(origin, request.host)
        client = client_of(request, self._proxies)
        if client != CLIENT.get():  # a task serves one connection, whose client seldom changes
            CLIENT.set(client)
        return client
