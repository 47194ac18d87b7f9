"""The state of the process that its tests share: whoever leaves it changed may fail others."""

from __future__ import annotations

import logging
import os
import resource
import signal
from pathlib import Path
from typing import Final

_LASTING: Final = {"PYTEST_CURRENT_TEST", "NUMBA_CACHE_DIR"}
"""Variables that pytest, and the first kernel compiled, set."""
_SIGNALS: Final = set(signal.Signals) - {signal.SIGALRM}
"""Signals but that of pytest-timeout, which gives up its alarm when a test fails."""


def shared_state() -> dict[str, object]:
    """Return each part of it by its name."""
    return {
        "the working directory": Path.cwd(),
        "the limit of open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "the level that logging is disabled below": logging.root.manager.disable,
        **{name: value for name, value in os.environ.items() if name not in _LASTING},
        **{number.name: signal.getsignal(number) for number in _SIGNALS},
        **dict(_loggers()),
    }


def _loggers():
    """Yield those that are not as they are created: the level, and handlers but those of pytest."""
    names = ["root", *(name for name in logging.root.manager.loggerDict if "mdtool" in name)]
    for logger in map(logging.getLogger, names):
        own = [each for each in logger.handlers if "_pytest" not in type(each).__module__]
        if logger.level or own:
            yield f"the logger {logger.name}", (logger.level, *own)
