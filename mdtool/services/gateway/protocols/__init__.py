"""The protocols that clients speak: each maps its requests to keys of feeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from mdtool.services.http.answers import Handler

Paths = Mapping[tuple[str, str], Handler]
"""Handlers by method and path."""


class ServedProtocol(Protocol):
    """A protocol, whose routes the server mounts."""

    @property
    def routes(self) -> Paths:
        """The handlers by method and path."""
        ...


@runtime_checkable
class RunningProtocol(Protocol):
    """A protocol with work beside its requests."""

    async def run(self) -> None:
        """Work until cancelled."""
        ...


@runtime_checkable
class ClosingProtocol(Protocol):
    """A protocol whose clients stay connected in another way than `Client.connected`."""

    async def close(self) -> None:
        """End what is open; called after the server has stopped listening."""
        ...
