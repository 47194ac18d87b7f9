"""A store whose server is unavailable when a service starts: it is waited for, as others are."""

from __future__ import annotations

import logging

from mdtool.adapters.stores import is_remote
from mdtool.adapters.stores.errors import StoreUnavailableError
from mdtool.core.backoff import delays

log = logging.getLogger(__name__)


class Awaited:
    """How long to wait before a store is opened again; says once why.

    Parameters
    ----------
    url : str
        The store's.
    """

    def __init__(self, url: str) -> None:
        self._is_remote = is_remote(url)
        self._delays = delays(first_s=0.2)
        self._is_said = False

    def pause_s(self, error: StoreUnavailableError) -> float:
        """Return the seconds until the next attempt, after one that failed.

        Raises
        ------
        StoreUnavailableError
            That error, of a store that is no server: a file is not there soon.
        """
        if not self._is_remote:
            raise error
        if not self._is_said:
            self._is_said = True
            log.warning("store %s; waiting for it", error)
        return next(self._delays)
