"""Stores of trades and state, by the scheme of their URLs, each in a module of its own."""

from __future__ import annotations

import importlib
from typing import Any, Final

from mdtool.adapters.stores.port import Care, Store, TradeHistory
from mdtool.core.errors import ConfigError, UsageError

__all__ = [
    "SCHEMES",
    "Care",
    "Store",
    "TradeHistory",
    "is_remote",
    "open_care",
    "open_history",
    "open_store",
]

SCHEMES: Final = {
    "sqlite": "mdtool.adapters.stores.sqlite",
    "postgresql": "mdtool.adapters.stores.postgresql",
    "mongodb": "mdtool.adapters.stores.mongodb",
    "mongodb+srv": "mdtool.adapters.stores.mongodb",
}
"""Modules with classes `Store` and `History`, called with a URL; imported on first use.

One of a store without tools of its own has a class `Care` too.
"""


def is_remote(url: str) -> bool:
    """Return whether a store is in a server, which may be unavailable while all is well here."""
    return url.partition(":")[0] != "sqlite"


def open_store(url: str) -> Store:
    """Return the store that a URL names, to be entered before use, which creates a missing one.

    Raises
    ------
    ConfigError
        When there is no such kind of store, or what it needs is not installed.
    """
    store: Store = _module(url).Store(url)
    return store


def open_history(url: str) -> TradeHistory:
    """Return a reader of the store that a URL names, which need not exist yet.

    Raises
    ------
    ConfigError
        When there is no such kind of store, or what it needs is not installed.
    """
    history: TradeHistory = _module(url).History(url)
    return history


def open_care(url: str) -> Care:
    """Return what copies, restores and compacts the store that a URL names.

    Raises
    ------
    ConfigError
        As `open_store`.
    UsageError
        When that is done with tools of the database.
    """
    module = _module(url)
    if not hasattr(module, "Care"):
        raise UsageError(
            f"{url.partition(':')[0]}: mdtool does not copy or compact it; use the database's own "
            "tools, such as pg_dump and pg_restore, or mongodump and mongorestore"
        )
    care: Care = module.Care(url)
    return care


def _module(url: str) -> Any:
    scheme = url.partition(":")[0]
    if scheme not in SCHEMES:
        raise ConfigError(f"{scheme}: no such store; choose from {', '.join(SCHEMES)}")
    return importlib.import_module(SCHEMES[scheme])
