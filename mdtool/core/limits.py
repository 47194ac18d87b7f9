"""The limits of the system on a process."""

from __future__ import annotations

import contextlib
import resource


def raise_file_limit() -> None:
    """Raise the limit of open files and connections to what the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS reports a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
