"""The claim of one process to the market of a store in MongoDB: an epoch, and a beating heart.

MongoDB has no locks that end with a process. The holder writes a new beat every second. Whoever
else claims the store watches the beat for as long as a holder may miss it, by its own clock, and
takes over where it stays. Then the epoch rises, without which the holder before commits nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import Any, Final

from mdtool.adapters.stores.errors import StoreClaimedError, StoreError
from mdtool.adapters.stores.mongodb.commits import Commits
from mdtool.adapters.stores.mongodb.connection import Connection, Documents, Location
from mdtool.adapters.stores.mongodb.reader import STORE

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
LEASE_S: Final = 6.0
_LOOK_S: Final = 0.1


class MarketClaim:
    """Holds the market, and beats in a thread of its own until it is released."""

    def __init__(self, location: Location, commits: Commits) -> None:
        self._connection = Connection(location, commits.create)
        self._commits = commits
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        """Claim the market, unless it is held by this claim.

        Raises
        ------
        StoreClaimedError
            When another process holds it.
        StoreError
            When the server is unavailable.
        """
        if self._commits.epoch is None:
            try:
                self._commits.epoch = self._connection.run(self._take)
            except BaseException:
                self._connection.close()
                raise
            self._released.clear()
            self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)
            self._thread.start()

    def release(self) -> None:
        """Let others claim the market."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._released.set()
        thread.join()
        which = {**STORE, "epoch": self._commits.epoch}
        self._commits.epoch = None
        try:
            self._connection.run(
                lambda database: database.market.update_one(which, {"$set": {"holder": None}})
            )
        except StoreError as error:  # others wait then until it misses its beats
            log.debug("%s", error)
        self._connection.close()

    def _take(self, database: Documents) -> int:
        seen: dict[str, Any] = {}
        ends_s = 0.0
        while True:
            found = database.market.find_one(STORE, {"epoch": 1, "beat": 1, "holder": 1}) or {}
            if not seen:
                seen, ends_s = found, time.monotonic() + LEASE_S
            if found.get("holder") is not None:
                if found != seen:
                    raise StoreClaimedError(
                        f"{self._connection.address}: is in use by {found['holder']}; stop that, "
                        "or name another database"
                    )
                if time.monotonic() < ends_s:
                    time.sleep(_LOOK_S)
                    continue
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            taken = database.market.update_one(
                found, {"$inc": {"epoch": 1, "beat": 1}, "$set": {"holder": holder}}
            )
            if taken.matched_count:
                return int(found["epoch"]) + 1

    def _beat(self) -> None:
        which = {**STORE, "epoch": self._commits.epoch}
        while not self._released.wait(BEAT_S):
            try:
                self._connection.run(
                    lambda database: database.market.update_one(which, {"$inc": {"beat": 1}})
                )
            except StoreError as error:  # the next write has its own
                log.debug("%s", error)
