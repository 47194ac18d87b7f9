"""The history as a whole: its parts put together, and how it is."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Self

from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.history.readers import Readers
from mdtool.services.gateway.history.rest import HistoryRest
from mdtool.services.gateway.history.view import HistoryView
from mdtool.services.gateway.history.watch import StoreWatch
from mdtool.services.gateway.protection import Protection


class History:
    """What clients may ask of the store that is configured. An async context manager.

    It starts without the store, and takes it up as soon as it is there.

    Parameters
    ----------
    config : GatewayConfig
    protection : Protection

    Attributes
    ----------
    view : HistoryView
        What all protocols answer from.
    rest : HistoryRest
        The handlers of its paths.
    resilience : Resilience
        Of the questions to the store.

    Raises
    ------
    ConfigError
        When there is no such kind of store, or what it needs is not installed.
    """

    def __init__(self, config: GatewayConfig, protection: Protection) -> None:
        self._readers = Readers(config.store) if config.store else None
        self._watch = (
            StoreWatch(self._readers, config.timeout_ms / 1_000) if self._readers else None
        )
        self.resilience = protection.resilience_of(
            f"store {self._readers.address}" if self._readers else "store"
        )
        self.view = HistoryView(self._readers, self.resilience, protection.upstream)
        self.rest = HistoryRest(self.view)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if self._readers is not None:
                await stack.enter_async_context(self._readers)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def run(self) -> None:
        """Look after the store until cancelled."""
        if self._watch is not None:
            await self._watch.run()

    def report(self) -> Mapping[str, Any] | None:
        """Return how the store is, for `/health`, None where there is none."""
        return None if self._watch is None else self._watch.report()
