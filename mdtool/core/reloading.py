"""What a process reads again at SIGHUP: the files of its certificates and of API keys."""

from __future__ import annotations

import weakref
from typing import Final, Protocol


class Reloadable(Protocol):
    """Something that came from files."""

    def read_again(self) -> None:
        """Read the files again, also where they look unchanged; those of no use change nothing."""
        ...


_IN_USE: Final = weakref.WeakSet[Reloadable]()
"""A signal reaches a process, and so does this: what its services use, until they forget it."""


def add(reloadable: Reloadable) -> None:
    """Have something read again, as long as somebody uses it."""
    _IN_USE.add(reloadable)


def is_anything_in_use() -> bool:
    """Return whether there is anything to read again."""
    return bool(_IN_USE)


def read_again() -> None:
    """Read all of it again."""
    for reloadable in list(_IN_USE):
        reloadable.read_again()
