"""What the system lets a process have."""

from __future__ import annotations

import contextlib
import resource


def raise_file_limit() -> None:
    """Allow the process as many files and connections as the system lets it have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS names a limit that it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
