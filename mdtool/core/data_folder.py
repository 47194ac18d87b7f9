"""The default place of mdtool's own data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

STORE_FILE: Final = "mdtool.db"
"""The name of the store in a data folder."""


def data_folder() -> Path:
    """Return the user's data folder of mdtool, which need not exist.

    Source: the XDG base directory specification, by which a relative `XDG_DATA_HOME` is ignored.
    """
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "share") / "mdtool"


def store_url(folder: Path | None = None) -> str:
    """Return the URL of the store in a data folder, the user's own by default.

    A path follows `sqlite:///`, so that an absolute one has a fourth slash.
    """
    return f"sqlite:///{(folder or data_folder()).absolute() / STORE_FILE}"
