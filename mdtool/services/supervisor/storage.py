"""Where the services of a supervisor keep their data."""

from __future__ import annotations

from pathlib import Path

from mdtool.core import config as settings
from mdtool.core.data_folder import data_folder, store_url
from mdtool.core.errors import StartupError, UsageError
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.supervisor.config import ServeConfig


def chosen_store(config: ServeConfig) -> str:
    """Return the URL of the store, empty for none; the folder that it is in is made.

    Without a word, it is the aggregator's own setting, else the store in the user's data folder.

    Raises
    ------
    UsageError
        When the settings contradict each other.
    StartupError
        When the folder cannot be made.
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
    return _store_in(data_folder() if config.data_dir is None else Path(config.data_dir))


def _store_in(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(
            f"cannot keep data in {folder}: {error.strerror}; name another folder with --data-dir, "
            "or say --memory"
        ) from error
    return store_url(folder)
