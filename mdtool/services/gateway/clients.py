"""Who a request is from."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network
from typing import Final

from aiohttp import web

CLIENT: Final[ContextVar[str]] = ContextVar("CLIENT", default="")
"""For whom the present task works: set before the handler of a request begins, else empty."""

_IPV6_PREFIX: Final = 64
"""Bits of the addresses that one host has by itself: it may use a new one for each request."""


def client_of(request: web.Request, proxies: int) -> str:
    """Return what stands for a client: its IPv4 address, or its IPv6 network.

    Parameters
    ----------
    request : web.Request
    proxies : int
        How many proxies stand before the gateway. Each adds to `X-Forwarded-For` who asked it;
        whatever stands there before that may be the client's own invention.
    """
    if proxies:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        if len(forwarded) >= proxies:
            return _network(forwarded[-proxies].strip())
    address = request.remote or ""
    return _network(address) if ":" in address else address


@functools.lru_cache(4_096)
def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        ipv6 = IPv6Address(address)
    except AddressValueError:
        return _without_port(address)
    if ipv6.ipv4_mapped is not None:
        return str(ipv6.ipv4_mapped)
    return str(IPv6Network((int(ipv6), _IPV6_PREFIX), strict=False))


def _without_port(text: str) -> str:
    """Return the address out of `1.2.3.4:567`, which some proxies write."""
    host = text.partition(":")[0]
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        return text
