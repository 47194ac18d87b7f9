"""Stores that are one SQLite file: `sqlite:///PATH`."""

from __future__ import annotations

from mdtool.adapters.stores.sqlite.history import History
from mdtool.adapters.stores.sqlite.store import Store

__all__ = ["History", "Store"]
