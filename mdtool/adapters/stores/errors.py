"""What can go wrong with a store, told apart by what to do about it."""

from __future__ import annotations

from mdtool.core.errors import MdtoolError, StartupError


class StoreError(MdtoolError):
    """A store cannot do what it was asked, and to ask again would not help."""


class StoreUnavailableError(StoreError):
    """A store cannot be reached or written now: locked, full, read-only, gone. It may be later."""


class StoreInterruptedError(StoreError):
    """A reader was interrupted."""


class StoreGapError(StoreError):
    """A run begins beyond the position of its stream: something between was not written."""


class StoreClaimedError(StartupError):
    """Another process holds the market of the store."""


class StoreRefusedError(StoreError, StartupError):
    """A server does not let this user in, or has no such database."""


class StoreFormatError(StoreError, StartupError):
    """What is there is no store, is corrupt, or is of a newer schema than this program knows."""
