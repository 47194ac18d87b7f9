"""An unprivileged user, and a folder that this user may enter."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.requirements import missing

NOBODY: Final = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Become an unprivileged user within the block."""
    if os.geteuid() != 0:
        missing("only root can become another user")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """Yield a folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
