"""Stores that are one SQLite file: `sqlite:///PATH[?synchronous=normal]`."""

from __future__ import annotations

from mdtool.adapters.stores.sqlite.care import Care
from mdtool.adapters.stores.sqlite.store import History, Store

__all__ = ["Care", "History", "Store"]
