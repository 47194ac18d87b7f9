"""`GET /api/v1/ice-servers`: what helps peers to reach each other through NATs and firewalls."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from mdtool.core.errors import ConfigError
from mdtool.services.http.answers import answer, encode_object

_SCHEMES: Final = {"stun": ("stun:", "stuns:"), "turn": ("turn:", "turns:")}


class IceServers:
    """STUN servers, and TURN servers with credentials that end.

    A TURN server that shares the secret checks the credentials by itself, as coturn does with
    `use-auth-secret`: the user name is the time at which they end and any name, the password the
    HMAC of that.

    Parameters
    ----------
    stun_urls, turn_urls : str
        Such as `stun:stun.example.com:3478`, with commas; empty where there is none.
    turn_secret : str
        What is shared with the TURN servers.
    turn_ttl_s : int
        How long credentials can be used.

    Raises
    ------
    ConfigError
        When a URL is none, or there are TURN servers and no secret.

    References
    ----------
    draft-uberti-behave-turn-rest-00.
    """

    def __init__(self, stun_urls: str, turn_urls: str, turn_secret: str, turn_ttl_s: int) -> None:
        self._stun = _parse_urls("stun", stun_urls)
        self._turn = _parse_urls("turn", turn_urls)
        if self._turn and not turn_secret:
            raise ConfigError("turn_urls: want turn_secret, which the servers share")
        self._secret = turn_secret.encode()
        self._ttl_s = turn_ttl_s

    async def answer(self, _request: web.Request) -> web.Response:
        """Answer with the configuration of an RTCPeerConnection."""
        servers = self.servers(int(time.time()), secrets.token_hex(8))
        body = encode_object({"iceServers": servers})
        return answer(body, {"Cache-Control": "no-store"})

    def servers(self, now_s: int, name: str) -> list[dict[str, Any]]:
        """Return the servers as RTCIceServer has them.

        Parameters
        ----------
        now_s : int
            The time, in s since the epoch.
        name : str
            What TURN servers are to call the user by.
        """
        servers: list[dict[str, Any]] = []
        if self._stun:
            servers.append({"urls": self._stun})
        if self._turn:
            user = f"{now_s + self._ttl_s}:{name}"
            # SHA-1 is what TURN servers compute.
            digest = hmac.new(self._secret, user.encode(), hashlib.sha1).digest()
            password = base64.b64encode(digest).decode()
            servers.append({"urls": self._turn, "username": user, "credential": password})
        return servers


def _parse_urls(kind: str, text: str) -> Sequence[str]:
    urls = [url.strip() for url in text.split(",") if url.strip()]
    for url in urls:
        scheme = next((each for each in _SCHEMES[kind] if url.startswith(each)), url)
        if not url.removeprefix(scheme):
            wanted = " or ".join(_SCHEMES[kind])
            raise ConfigError(f"{kind}_urls: {url!r} is no URL; it begins with {wanted}")
    return urls
