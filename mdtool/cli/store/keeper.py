"""Opens the store that a command brings trades into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mdtool.cli.store.place import store_of
from mdtool.core.config import load
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.store.config import StoreConfig

if TYPE_CHECKING:
    from mdtool.services.store.keeping import Keeper


@contextlib.contextmanager
def opened_keeper(config: StoreConfig) -> Iterator[Keeper]:
    """Yield the keeper of a store, with the bounds that the aggregation service has on it.

    The folder of the user's own store is made, that of another must be there.

    Raises
    ------
    StoreClaimedError
        When that service, or another command, holds the store.
    StoreError, StartupError
        When it cannot be opened or made.
    """
    from mdtool.adapters.stores import open_store
    from mdtool.services.store.keeping import Keeper

    with open_store(store_of(config, makes_folder=True)) as store:
        yield Keeper(store, load(AggregatorConfig, "aggregate", {}))
