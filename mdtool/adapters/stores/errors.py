"""Errors of stores, by what to do about them."""

from __future__ import annotations

from mdtool.core.errors import MdtoolError, StartupError


class StoreError(MdtoolError):
    """A request failed, and a retry would not succeed."""


class StoreUnavailableError(StoreError):
    """A store cannot be reached or written now: locked, full, read-only, gone. Retry later."""


class StoreInterruptedError(StoreError):
    """A reader was interrupted."""


class StoreGapError(StoreError):
    """A run begins after the position of its stream: frames between were not written."""


class StoreClaimedError(StartupError):
    """Another process holds the market of the store."""


class StoreRefusedError(StoreError, StartupError):
    """A server rejects this user, or has no such database."""


class StoreFormatError(StoreError, StartupError):
    """A file or database that is not a store, is damaged, or has a newer schema."""
