"""The one door to numba: how kernels are compiled and where they are cached."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
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


class _InterruptKeeper(numba_event.Listener):
    """Keeps a Ctrl-C that comes while LLVM calls back, as what is raised there is lost."""

    _CALLBACKS: Final = {"_raw_object_cache_notify", "_raw_object_cache_getbuffer"}

    def __init__(self) -> None:
        self._depth = 0
        self._is_pending = False

    def on_start(self, _event: object) -> None:
        if not _is_main():
            return
        if not self._depth and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._received)
        self._depth += 1

    def on_end(self, _event: object) -> None:
        if not _is_main():
            return
        self._depth -= 1
        if not self._depth and signal.getsignal(signal.SIGINT) == self._received:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._is_pending:
            self._is_pending = False
            raise KeyboardInterrupt

    def _received(self, number: int, frame: FrameType | None) -> None:
        at = frame
        while at is not None:
            if at.f_code.co_name in self._CALLBACKS:
                self._is_pending = True
                return
            at = at.f_back
        signal.default_int_handler(number, frame)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


numba_event.register("numba:compile", _CompileNotice())  # type: ignore[no-untyped-call]
numba_event.register("numba:compiler_lock", _InterruptKeeper())  # type: ignore[no-untyped-call]

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
