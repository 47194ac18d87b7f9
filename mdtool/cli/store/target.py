"""The store of a command: its URL, opened for writing, and a summary of what was written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mdtool.core.config import load
from mdtool.core.errors import UsageError
from mdtool.core.units import counted
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.store.config import StoreConfig
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.storage import chosen_store

if TYPE_CHECKING:
    from mdtool.core.trades import Reason
    from mdtool.services.store.writer import RowWriter


def url_of(config: StoreConfig, makes_folder: bool = False) -> str:
    """Return the URL of the store in the settings, else of the store of `serve all`.

    Parameters
    ----------
    config : StoreConfig
        The command's settings.
    makes_folder : bool
        Whether to create the folder of the latter.

    Raises
    ------
    UsageError
        When `serve all` has no store.
    StartupError
        When the folder cannot be created.
    """
    served = replace(load(ServeConfig, "serve", {}), simulate=False, replay=None)
    url = config.store or chosen_store(served, makes_folder)
    if not url:
        raise UsageError("`serve all` is set to --memory: name a store with --store")
    return url


@contextlib.contextmanager
def open_writer(config: StoreConfig) -> Iterator[RowWriter]:
    """Yield a writer of the command's store, with the settings of the aggregation service.

    The folder of the user's own store is created; another folder must exist.

    Raises
    ------
    StoreClaimedError
        When that service, or another command, holds the store.
    StoreError, StartupError
        When it cannot be opened or created.
    """
    from mdtool.adapters.stores import open_store
    from mdtool.services.store.writer import RowWriter

    with open_store(url_of(config, makes_folder=True)) as store:
        yield RowWriter(store, load(AggregatorConfig, "aggregate", {}))


def summary(name: str, writer: RowWriter, rejected: Mapping[Reason, int]) -> str:
    """Return the last line of a command: how many trades are new, known, and left out and why."""
    reasons = {reason.label: count for reason, count in sorted(rejected.items())}
    if writer.rejected:
        reasons["no room for its symbol"] = writer.rejected
    line = (
        f"{name}: {counted(writer.new, 'trade')} new, {writer.known:,} known already, "
        f"{sum(reasons.values()):,} left out"
    )
    if reasons:
        line += f" ({', '.join(f'{label} {count:,}' for label, count in reasons.items())})"
    if writer.late:
        line += f"; {writer.late:,} of the new ones too old for bars"
    return line
