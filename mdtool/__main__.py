"""The `mdtool` command, and `python -m mdtool`: Ctrl-C ends it quietly from the first import on."""

from __future__ import annotations

import sys
from typing import NoReturn

from mdtool.core.errors import EXIT_INTERRUPTED


def main() -> NoReturn:
    """Run the command line, and end the process with the status that its outcome means."""
    try:
        from mdtool.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
