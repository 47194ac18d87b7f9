"""The address by which an anonymous client is known."""

from __future__ import annotations

import functools
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network
from typing import Final

_IPV6_PREFIX: Final = 64
"""Bits of the network that one host has to itself: it may use a new address for each request."""
# What a proxy says of a client that it does not name (RFC 7239, section 6).
_UNKNOWN: Final = "unknown"
_HIDDEN: Final = "_"


@functools.lru_cache(4_096)
def client_address(text: str) -> str:
    """Return what identifies an anonymous client: its IPv4 address, or its IPv6 network.

    Parameters
    ----------
    text : str
        An address of either family, also with a port, an IPv6 one then in brackets. Any other text
        is returned as it is.
    """
    if ":" not in text:
        return text
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    try:
        ipv6 = IPv6Address(text)
    except AddressValueError:
        return _without_port(text)
    if ipv6.ipv4_mapped is not None:
        return str(ipv6.ipv4_mapped)
    return str(IPv6Network((int(ipv6), _IPV6_PREFIX), strict=False))


def _without_port(text: str) -> str:
    host = text.partition(":")[0]
    if host == _UNKNOWN or host.startswith(_HIDDEN):
        return host
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        return text
