"""The one door to numba: how kernels are compiled and where they are cached."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from mdtool import __version__

F = TypeVar("F", bound=Callable[..., Any])


def _cache_dir() -> Path:
    """Return a folder that is writable wherever the package itself lives."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mdtool" / f"kernels-{__version__}"


# numba reads this once, when it is imported.
os.environ.setdefault("NUMBA_CACHE_DIR", str(_cache_dir()))

import numba  # noqa: E402
from numba.core import event as numba_event  # noqa: E402


class _CompileNotice(numba_event.Listener):
    """Says once a process, on stderr, that a kernel is being compiled."""

    said = False

    def on_start(self, _event: object) -> None:
        if not self.said:
            self.said = True
            print(
                "mdtool: compiling kernels, once after an install...", file=sys.stderr, flush=True
            )

    def on_end(self, _event: object) -> None:
        """Stay quiet: the command's own output follows."""


numba_event.register("numba:compile", _CompileNotice())  # type: ignore[no-untyped-call]

_kernel: Final = numba.njit(cache=True, nogil=True, error_model="numpy")
# `_nrt` is an option of numba's that its type stubs leave out.
_inline: Final = numba.njit(  # type: ignore[call-overload]
    nogil=True, error_model="numpy", forceinline=True, _nrt=False
)


def kernel(function: F) -> F:
    """Compile a function over arrays and scalars on its first use, and keep it on disk.

    Inside kernels every integer is int64: numba turns int64 with uint64 into float64, so callers
    pass unsigned 64-bit fields as `int64` views. Arithmetic that wraps around, such as a hash, is
    the exception: numba promises LLVM that signed integers never do, so it is written in
    `np.uint64`, constants and shift counts included. Functions that a kernel calls live in its own
    file, for the cache does not see changes in others.
    """
    return cast("F", _kernel(function))


def inlined(function: F) -> F:
    """Make a function part of the kernels of its own file that call it, without reference counts.

    Counting references to the arrays that it is given would cost more than what it does (a book's
    events were applied at a quarter of the speed), so it can neither make nor return arrays.
    """
    return cast("F", _inline(function))
