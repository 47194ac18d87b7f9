"""The user's folders: where mdtool's own data and caches are by default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from mdtool.core.errors import StartupError

STORE_FILE: Final = "mdtool.db"
"""The name of the store in a data folder."""


def home() -> Path | None:
    """Return the user's home, None where neither HOME nor the system's accounts name one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def data_folder() -> Path:
    """Return the user's data folder of mdtool, which need not exist.

    Source: the XDG base directory specification, by which a relative `XDG_DATA_HOME` is ignored.

    Raises
    ------
    StartupError
        When the user has no home.
    """
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    if named.is_absolute():
        return named / "mdtool"
    found = home()
    if found is None:
        raise StartupError(
            "cannot store data: this user has no home; name a folder with --data-dir or "
            "XDG_DATA_HOME, or use --memory"
        )
    return found / ".local" / "share" / "mdtool"


def store_url(folder: Path | None = None) -> str:
    """Return the URL of the store in a data folder, the user's own by default.

    A path follows `sqlite:///`, so that an absolute one has a fourth slash.
    """
    return f"sqlite:///{(folder or data_folder()).absolute() / STORE_FILE}"
