"""The one door to numba: how kernels are compiled and where they are cached.

Kernels live in modules named `*kernel.py`, and may call each other's functions. numba's cache sees
changes of a kernel's own file only, so the name of the cache folder holds a digest of all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, TypeVar, cast

from mdtool import __version__

F = TypeVar("F", bound=Callable[..., Any])


_FOLDER_PREFIX: Final = "kernels-"
_MAX_FOLDERS: Final = 8
"""How many cache folders are kept, 5 MB each: those of the latest versions to run."""


def _kernel_digest() -> str:
    """Return what identifies the sources of all kernels; 15 files take a millisecond."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parents[1].rglob("*kernel.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _open_cache() -> Path:
    """Return the cache folder of these kernels; where it is new, remove the longest unused."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        base = Path(chosen)
        if base.name.startswith(_FOLDER_PREFIX):  # set by the process that started this one
            base = base.parent
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mdtool"
    folder = base / f"{_FOLDER_PREFIX}{__version__}-{_kernel_digest()}"
    with contextlib.suppress(OSError):  # read-only, or another process is at it too
        if folder.is_dir():
            os.utime(folder)
        else:
            folder.mkdir(parents=True)
            others = [path for path in base.glob(f"{_FOLDER_PREFIX}*") if path != folder]
            others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in others[_MAX_FOLDERS - 1 :]:
                shutil.rmtree(path, ignore_errors=True)
    return folder


# numba reads this once, when it is imported.
os.environ["NUMBA_CACHE_DIR"] = str(_open_cache())

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
    `np.uint64`, constants and shift counts included.
    """
    return cast("F", _kernel(function))


def inlined(function: F) -> F:
    """Make a function part of the kernels that call it, without reference counts.

    Counting references to the arrays that it is given would cost more than what it does (a book's
    events were applied at a quarter of the speed), so it can neither make nor return arrays.
    """
    return cast("F", _inline(function))
