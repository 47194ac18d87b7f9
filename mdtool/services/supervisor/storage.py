"""The store that the services of a supervisor share."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mdtool.core import config as settings
from mdtool.core.data_folder import data_folder, store_url
from mdtool.core.errors import StartupError, UsageError
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.supervisor.config import ServeConfig


def chosen_store(config: ServeConfig, makes_folder: bool = True) -> str:
    """Return the URL of the store, empty for none.

    By default it is the aggregator's own setting, else the store in the user's data folder, which
    stays free of trades that are simulated or replayed.

    Parameters
    ----------
    config : ServeConfig
    makes_folder : bool
        Whether to create the data folder if it does not exist.

    Raises
    ------
    UsageError
        When the settings contradict each other.
    StartupError
        When the folder cannot be created or written.
    """
    given = {
        "--data-dir": config.data_dir,
        "--store": config.store,
        "--memory": config.memory or None,
    }
    options = [option for option, value in given.items() if value is not None]
    if len(options) > 1:
        raise UsageError(f"{' and '.join(options)}: choose one")
    if config.memory:
        return ""
    if config.data_dir is None:
        own = settings.load(AggregatorConfig, "aggregate", {"store": config.store}).store
        if own:
            return own
        if config.simulate or config.replay is not None:
            return ""
    folder = data_folder() if config.data_dir is None else Path(config.data_dir)
    if makes_folder:
        _create(folder)
    return store_url(folder)


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StartupError(
            f"cannot store data in {folder}: {error.strerror}; name another folder with "
            "--data-dir, or use --memory"
        ) from error
