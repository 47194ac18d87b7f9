"""Whether the store is there, looked at now and then, so that people learn of it before clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from mdtool.core.errors import PeerError
from mdtool.services.gateway.history.readers import Readers

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0


class StoreWatch:
    """Asks a store the least that there is to ask.

    Parameters
    ----------
    readers : Readers
        Who read it.
    timeout_s : float
        How long it may take to answer.

    Attributes
    ----------
    lost_because : str or None
        Why the store does not answer.
    """

    def __init__(self, readers: Readers, timeout_s: float) -> None:
        self.lost_because: str | None = "not asked yet"
        self._readers = readers
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._readers.ask(lambda history: history.has(""), self._timeout_s)
            except PeerError as error:
                self._note(str(error))
            else:
                self._note(None)
            await asyncio.sleep(LOOK_S)

    def report(self) -> Mapping[str, Any]:
        """Return how the store is, for `/health`."""
        return {
            "address": self._readers.address,
            "connected": self.lost_because is None,
            "message": self.lost_because,
        }

    def _note(self, lost_because: str | None) -> None:
        was, self.lost_because = self.lost_because, lost_because
        if lost_because is None and was is not None:
            log.info("store %s: connected", self._readers.address)
        elif lost_because is not None and was is None:
            log.warning("store %s; trying again, and answering no history", lost_because)
        elif lost_because != was:
            log.info("store %s; waiting for it", lost_because)
