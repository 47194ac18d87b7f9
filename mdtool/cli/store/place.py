"""Which store a command is about."""

from __future__ import annotations

from mdtool.core.config import load
from mdtool.core.errors import UsageError
from mdtool.services.store.config import StoreConfig
from mdtool.services.supervisor.config import ServeConfig
from mdtool.services.supervisor.storage import chosen_store


def store_of(config: StoreConfig, makes_folder: bool = False) -> str:
    """Return the URL of the store that settings name, else of the one that `serve all` keeps.

    Parameters
    ----------
    config : StoreConfig
        The command's settings.
    makes_folder : bool
        Whether to make the folder of the latter where it is not there yet.

    Raises
    ------
    UsageError
        When there is none.
    StartupError
        When the folder cannot be made.
    """
    url = config.store or chosen_store(load(ServeConfig, "serve", {}), makes_folder)
    if not url:
        raise UsageError("`serve all` is set to keep nothing: name a store with --store")
    return url
