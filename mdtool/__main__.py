"""The `mdtool` command, and `python -m mdtool`. Interrupts end it quietly from its imports on."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from mdtool.core.errors import EXIT_INTERRUPTED
from mdtool.core.interrupts import catch_termination, outcome

_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"
"""How many threads numpy's linear algebra starts, which mdtool never uses: 20 ms, and memory."""
_FIRST: Final = 1
"""The id of a container's first process."""


def main() -> NoReturn:
    """Run the command line, and end the process with the status that its outcome means."""
    os.environ.setdefault(_BLAS_THREADS, "1")
    try:
        if os.getpid() == _FIRST:
            from mdtool.core.first_process import continue_in_child

            continue_in_child()
        catch_termination()
        from mdtool.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(outcome(EXIT_INTERRUPTED))
    run()


if __name__ == "__main__":
    main()
