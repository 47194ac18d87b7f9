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


def shared_state() -> dict[str, object]:
    """Return each part of it by its name."""
    names = ["root", *(name for name in logging.root.manager.loggerDict if "mdtool" in name)]
    loggers = [logging.getLogger(name) for name in names]
    return {
        "the working directory": Path.cwd(),
        "the limit of open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "the level that logging is disabled below": logging.root.manager.disable,
        **{name: value for name, value in os.environ.items() if name not in _LASTING},
        **{number.name: signal.getsignal(number) for number in signal.Signals},
        # A logger that a module makes when it is first imported has neither.
        **{f"the level of logger {each.name}": each.level for each in loggers if each.level},
        **{
            f"the handlers of logger {each.name}": own
            for each in loggers
            if (own := _handlers(each))
        },
    }


def _handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Return them without those of pytest, which come and go with the phases of a test."""
    return [each for each in logger.handlers if not type(each).__module__.startswith("_pytest.")]
