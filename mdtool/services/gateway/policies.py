"""Who may request each route of the gateway, where clients authenticate.

Every route has a line here, or a row in the table of feeds: one that has neither keeps the gateway
from starting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from mdtool.services.gateway.protocols.book_services import CONTROLS
from mdtool.services.gateway.protocols.rest import PREFIX
from mdtool.services.gateway.protocols.sign_in import PATH as SIGN_IN
from mdtool.services.gateway.protocols.stomp import SIGNALING
from mdtool.services.gateway.table import FeedRow
from mdtool.services.http.entry import IN_BAND, OPEN, SOCKET, TOKEN, Policy

_SOCKJS: Final = "/ws/{server}/{session}"
_FIXED: Final[Mapping[tuple[str, str], Policy]] = {
    ("GET", "/api/v1/marketdata/{symbol}"): Policy(feed="aggregates"),
    ("GET", "/api/v1/marketdata"): Policy(feed="aggregates"),
    ("GET", "/api/v1/bars/{symbol}"): Policy(feed="bars"),
    ("GET", "/api/v1/symbols"): Policy(feed="symbols"),
    ("GET", "/api/v1/trades/{symbol}"): Policy(feed="trades"),
    ("GET", "/v1/quotes"): Policy(feed="quotes"),
    ("POST", "/api/v2/tickets"): TOKEN,
    ("GET", SIGN_IN): OPEN,
    ("POST", SIGN_IN): OPEN,
    ("GET", "/stream"): SOCKET,
    ("POST", "/graphql"): TOKEN,
    ("GET", "/graphql"): SOCKET,  # a WebSocket; as a query it requires a token itself
    ("GET", "/ws/websocket"): SOCKET,
    ("GET", f"{_SOCKJS}/websocket"): SOCKET,
    ("GET", f"{_SOCKJS}/eventsource"): IN_BAND,
    ("POST", f"{_SOCKJS}/xhr_streaming"): IN_BAND,
    ("POST", f"{_SOCKJS}/xhr"): IN_BAND,
    ("POST", f"{_SOCKJS}/xhr_send"): IN_BAND,
    ("GET", "/ws/info"): OPEN,
    ("GET", "/ws/"): OPEN,
    ("GET", "/ws/iframe{version:[0-9A-Za-z_.-]*}.html"): OPEN,
    ("GET", "/api/v1/ice-servers"): Policy(right=SIGNALING),
    ("POST", "/api/start-streaming"): Policy(right="replay"),
    **{("POST", f"/api/{name}"): Policy(right="replay") for name in CONTROLS},
    ("GET", "/api/order-book"): Policy(feed="books"),
    ("GET", "/api/microservices/status"): Policy(right="metrics"),
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/health"): Policy(right="metrics"),
    ("GET", "/metrics"): Policy(right="metrics"),
    # Pages have no data, and a client signs in by them.
    ("GET", "/"): OPEN,
    ("GET", "/book"): OPEN,
    ("GET", "/demo/{name}"): OPEN,
    ("GET", "/static/{name}"): OPEN,
    ("GET", "/assets/{path:.+}"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/graphiql"): OPEN,
    ("GET", "/openapi.json"): OPEN,
}


def policies(rows: Iterable[FeedRow]) -> Mapping[tuple[str, str], Policy]:
    """Return the policy of each route by method and path, those of feeds from the table."""
    found = dict(_FIXED)
    for row in rows:
        policy = Policy(feed=row.name)
        found["GET", f"{PREFIX}/{row.name}"] = policy
        if not row.is_whole:
            found["GET", f"{PREFIX}/{row.name}/{{symbol}}"] = policy
        if row.socket is not None:
            found["GET", row.socket.path] = Policy(is_socket=True, feed=row.name)
    return found
