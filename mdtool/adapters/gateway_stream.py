"""A client of a gateway's `WS /stream`: its VWAPs and alerts, as the lines of a VWAP feed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from mdtool.adapters.identity.config import services_secret
from mdtool.adapters.vwap_feed import Listener, follow_lines
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError, UsageError
from mdtool.core.tcp import reason_of
from mdtool.core.tls import http_options
from mdtool.core.units import UNDEF_PRICE, parse_price, parse_time
from mdtool.wire.alert_lines import encode_alert
from mdtool.wire.vwap_lines import VwapState, encode_state

_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_PORTS: Final = {"ws": 80, "wss": 443}
_PATH: Final = "/stream"
_SYMBOLS, _VWAP, _ALERTS = "symbols", "vwap", "alerts"
_OPTIONAL: Final = {_SYMBOLS, _ALERTS}
"""Channels that older gateways do not have, or that the client may not read."""
_MAX_MESSAGE_BYTES: Final = 1 << 20
_CONNECT_S: Final = 10.0
_PING_S: Final = 15.0


class GatewayStreamClient:
    """Reads the VWAPs and the alerts of one gateway.

    Parameters
    ----------
    url : str
        `http://HOST:PORT`, with a base path where it has one; https, ws and wss, too.
    symbols : frozenset of str, optional
        The symbols to subscribe to, None for all.
    token : str, optional
        By which the client authenticates; by default, that of services.

    Attributes
    ----------
    address : str
        Its host and port.

    Raises
    ------
    UsageError
        When the URL is not valid.
    """

    def __init__(
        self, url: str, symbols: frozenset[str] | None = None, token: str | None = None
    ) -> None:
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme)
        if scheme is None or not parts.hostname:
            raise UsageError(f"{url}: is not the URL of a gateway; give http://HOST:PORT")
        path = parts.path.rstrip("/").removesuffix(_PATH) + _PATH
        self.address = f"{parts.netloc}" if parts.port else f"{parts.netloc}:{_PORTS[scheme]}"
        parse_address(self.address)
        self._url = urlunsplit((scheme, parts.netloc, path, "", ""))
        self._symbols = sorted(symbols) if symbols is not None else ["*"]
        self._token = services_secret() if token is None else token

    async def follow(self, listener: Listener) -> NoReturn:
        """Notify a listener of lines and connections until cancelled."""
        await follow_lines(self.lines, listener)

    async def lines(
        self, connected: Callable[[], None] | None = None
    ) -> AsyncIterator[list[bytes]]:
        """Yield the lines of one connection, as they arrive.

        Parameters and errors are those of `updates`.
        """
        requests = [
            {"op": "subscribe", "id": channel, "channel": channel, "symbols": self._symbols}
            for channel in (_SYMBOLS, _VWAP, _ALERTS)
        ]
        lots: dict[str, int] = {}
        async for update in self.updates(requests, connected):
            data = update.get("data")
            if not isinstance(data, dict):
                continue
            match update.get("channel"):
                case "symbols":
                    _take_lot(data, lots)
                case "alerts":
                    yield [encode_alert(data)]
                case "vwap":
                    yield [_vwap_line(data, lots)]

    async def updates(
        self, requests: Sequence[Mapping[str, Any]], connected: Callable[[], None] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the messages of one connection that are no errors, as they arrive.

        Parameters
        ----------
        requests : sequence of mapping
            What to subscribe to.
        connected : callable, optional
            Called once the connection is open.

        Raises
        ------
        PeerError
            When the gateway cannot be reached, rejects the client, or is not one.
        """
        tls = http_options("gateway", self.address) if self._url.startswith("wss:") else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.ws_connect(
                    self._url, max_msg_size=_MAX_MESSAGE_BYTES, heartbeat=_PING_S, **tls
                ) as socket,
            ):
                if connected is not None:
                    connected()
                if self._token:
                    await socket.send_json({"op": "auth", "token": self._token})
                for request in requests:
                    await socket.send_json(request)
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.ERROR:
                        raise PeerError(_why_closed(getattr(message.data, "code", None)))
                    yield _answer(message)
                raise PeerError(_why_closed(socket.close_code))
        except aiohttp.ClientConnectorError as error:
            raise PeerError(reason_of(error.os_error)) from error
        except aiohttp.WSServerHandshakeError as error:
            raise PeerError(f"answers {error.status}: it is not a gateway's {_PATH}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise PeerError(str(error) or type(error).__name__) from error


def _why_closed(code: int | None) -> str:
    if code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        return f"a message of more than {_MAX_MESSAGE_BYTES:,} bytes: it is not a gateway"
    return f"the gateway closed the connection ({code})"


def _answer(message: aiohttp.WSMessage) -> dict[str, Any]:
    """Return a message.

    Raises
    ------
    PeerError
        When a request was rejected, or the peer is not a gateway.
    """
    try:
        answer = json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise PeerError("the peer does not send JSON objects: it is not a gateway")
    error = answer.get("error")
    if isinstance(error, dict) and answer.get("id") not in _OPTIONAL:
        raise PeerError(f"the gateway reported: {str(error.get('message'))[:200]}")
    return answer


def _take_lot(data: Mapping[str, Any], lots: dict[str, int]) -> None:
    """Take what one unit of the volume of a symbol is."""
    try:
        if data["lot"] is not None:
            lots[data["symbol"]] = parse_price(data["lot"])
    except (KeyError, TypeError, ValueError, UsageError):
        pass  # volumes are shown as they are


def _vwap_line(data: Mapping[str, Any], lots: Mapping[str, int]) -> bytes:
    """Return the line of a VWAP."""
    try:
        return encode_state(
            VwapState(
                data["symbol"],
                parse_price(data["price"]),
                int(data["size"]),
                UNDEF_PRICE if data["vwap"] is None else parse_price(data["vwap"]),
                int(data["window"]),
                parse_time(data["timestamp"]),
                lots.get(data["symbol"]),
                is_stale=data.get("stale") is True,
            )
        ).rstrip(b"\n")
    except (KeyError, TypeError, ValueError, UsageError):
        return json.dumps(data).encode()  # what reads lines reports it
