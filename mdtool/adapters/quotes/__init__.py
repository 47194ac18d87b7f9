"""Hubs that carry quotes, by the scheme of their URLs."""

from __future__ import annotations

import importlib
from typing import Final

from mdtool.adapters.quotes.port import QuoteHub, QuoteListener
from mdtool.core.errors import ConfigError

__all__ = ["SCHEMES", "QuoteHub", "QuoteListener", "open_hub"]

SCHEMES: Final = {
    "memory": "mdtool.adapters.quotes.memory:MemoryQuoteHub",
    "redis": "mdtool.adapters.quotes.redis:RedisQuoteHub",
    "rediss": "mdtool.adapters.quotes.redis:RedisQuoteHub",
    "redis+sentinel": "mdtool.adapters.quotes.redis:RedisQuoteHub",
    "rediss+sentinel": "mdtool.adapters.quotes.redis:RedisQuoteHub",
}
"""Their classes, called with a URL; a module is imported when a URL names it."""


def open_hub(url: str) -> QuoteHub:
    """Return the hub that a URL names, not connected yet.

    Raises
    ------
    ConfigError
        When there is no such hub, or a package that it needs is not installed.
    """
    scheme = url.partition(":")[0]
    if scheme not in SCHEMES:
        raise ConfigError(f"{scheme}: no such hub of quotes; choose from {', '.join(SCHEMES)}")
    module, _, name = SCHEMES[scheme].partition(":")
    hub: QuoteHub = getattr(importlib.import_module(module), name)(url)
    return hub
