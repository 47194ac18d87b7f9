"""Whether a page is a service's own, by the headers `Origin` and `Host` of its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DEFAULT_PORTS: Final[Mapping[str, str]] = {"http": "80", "https": "443"}
"""The port that each scheme implies."""


def is_own(origin: str, host: str) -> bool:
    """Return whether a page of an origin came from the host that it makes a request to.

    The scheme is not compared, for proxies terminate TLS; it only says which port either of them
    means where it has none.
    """
    scheme, _, place = origin.partition("://")
    return _with_port(place, scheme) == _with_port(host, scheme)


def _with_port(place: str, scheme: str) -> str:
    """Return HOST:PORT in lower case."""
    has_port = ":" in place.rpartition("]")[2]
    default = DEFAULT_PORTS.get(scheme.lower(), "")
    return place.lower() if has_port else f"{place.lower()}:{default}"
