"""Kernels compiled by another process, so that numba's memory ends with what it was needed for.

Run as a module, it compiles the kernel that standard input names, and writes the image.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from mdtool.core.interrupts import Blocking
from mdtool.core.logs import SUPERVISED
from mdtool.core.machine_code import DamagedError, Image, UnsupportedError

log = logging.getLogger(__name__)

_UNSUPPORTED: Final = 3
_PACKAGE: Final = "mdtool."
_SAID: Final = "MDTOOL_COMPILING"
"""Set in the environment of the process that compiles: the one that started it has said so."""


class Notice:
    """Says once a process that kernels are being compiled: on stderr, or in a service's log."""

    why_not_cached = ""
    _is_said = _SAID in os.environ

    @classmethod
    def say(cls) -> None:
        """Say it, unless that was said."""
        if cls._is_said:
            return
        cls._is_said = True
        what = "compiling kernels, once after an install..."
        if cls.why_not_cached:
            what = (
                f"compiling kernels, which are not cached ({cls.why_not_cached}); name a folder "
                "that can be written with XDG_CACHE_HOME"
            )

        # A supervisor takes other lines for the reason of its child's end, and holds them back.
        if SUPERVISED in os.environ:
            log.warning("%s", what) if cls.why_not_cached else log.info("%s", what)
        else:
            print(f"mdtool: {what}", file=sys.stderr, flush=True)


def compiled_elsewhere(function: Callable[..., Any], arguments: tuple[object, ...]) -> Image | None:
    """Return the image of a kernel that another process compiles, None where that cannot be.

    Parameters
    ----------
    function : callable
        The kernel in Python; only those of this package are found by another process.
    arguments : tuple
        Whose types are compiled for.

    Raises
    ------
    UnsupportedError
        numba compiles it in its own way only, or not at all.
    CancelledError
        The service of this process is stopped meanwhile.
    """
    if not function.__module__.startswith(_PACKAGE) or not sys.executable:
        return None
    Notice.say()
    wanted = function.__module__, function.__qualname__, tuple(map(_example, arguments))
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109 - no object
    try:
        with subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, _SAID: "1"},
        ) as process:
            try:
                with Blocking.block(process.kill):
                    image, _ = process.communicate(pickle.dumps(wanted))
            except BaseException:
                process.kill()
                raise
        if process.returncode and Blocking.is_stopping:
            from asyncio import CancelledError  # commands that are no services do without it

            raise CancelledError
        if process.returncode == _UNSUPPORTED:
            raise UnsupportedError(function.__qualname__)
        return Image.from_bytes(image) if process.returncode == 0 else None
    except (OSError, DamagedError):
        return None


def _example(argument: object) -> object:
    """Return an empty argument of the same type."""
    if isinstance(argument, np.ndarray):
        if not (argument.flags.c_contiguous and argument.flags.aligned):
            raise UnsupportedError("arrays in another order")
        example = np.empty((0,) * argument.ndim, argument.dtype)
        return example if argument.flags.writeable else _ReadOnly(example)
    return _mapped(_example, argument) if isinstance(argument, tuple) else argument


class _ReadOnly(NamedTuple):
    """An array that is not written, which pickle does not keep."""

    example: np.ndarray[Any, Any]


def _restored(example: object) -> object:
    if isinstance(example, _ReadOnly):
        example.example.flags.writeable = False
        return example.example
    return _mapped(_restored, example) if isinstance(example, tuple) else example


def _mapped(change: Callable[[Any], object], items: tuple[Any, ...]) -> object:
    """Return a tuple of the same kind; a named one takes its items apart, others together."""
    kind: Any = type(items)
    changed = [change(item) for item in items]
    return kind(*changed) if hasattr(kind, "_fields") else kind(changed)


def main() -> int:
    """Compile the kernel that standard input names, and write the image to standard output."""
    # Ctrl-C is for the process that waits: it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, pickle.UnpicklingError, BrokenPipeError):
        name, qualname, examples = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own process
        kernel = getattr(importlib.import_module(name), qualname)
        try:
            image = kernel.compiled(tuple(map(_restored, examples)))
        except UnsupportedError:
            return _UNSUPPORTED
        sys.stdout.buffer.write(image.to_bytes())
        sys.stdout.buffer.flush()
        return 0
    return 1  # that process has ended


if __name__ == "__main__":
    # Its classes are those that pickle finds, not those of `__main__`.
    sys.exit(importlib.import_module("mdtool.core.compiling").main())
