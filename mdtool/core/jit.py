"""Kernels: how they are compiled and cached, and how they run without numba.

Kernels live in modules named `*kernel.py`, and may call each other's functions. Their machine code
is cached on disk for the types of arguments that they were called with, in a folder whose name
holds a digest of all their sources, the compiler and the CPU. Where it is found, numba is not
imported.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from mdtool.core import machine_code
from mdtool.core.compiling import Notice, compiled_elsewhere
from mdtool.core.data_folder import home

F = TypeVar("F", bound=Callable[..., Any])


_FOLDER_PREFIX: Final = "kernels-"
_MAX_FOLDERS: Final = 8
"""How many cache folders are kept, 1 MB each: those of the latest versions to run."""
_SUFFIX: Final = ".code"
_NOWHERE: Final = Path(os.devnull)
"""A folder that cannot be made, for a user without a home."""
_PROBED_BYTES: Final = 1 << 20
"""What the code of some kernels takes."""


def _kernel_digest() -> str:
    """Return what identifies the sources of all kernels; 15 files take a millisecond."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parents[1].rglob("*kernel.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def cache_folder() -> Path:
    """Return the cache folder of these kernels; where it is new, remove the longest unused."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        base = Path(chosen)
        if base.name.startswith(_FOLDER_PREFIX):  # set by the process that started this one
            base = base.parent
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or (home() or _NOWHERE) / ".cache") / "mdtool"
    folder = base / f"{_FOLDER_PREFIX}{_kernel_digest()}"
    with contextlib.suppress(OSError):  # read-only, or another process is at it too
        if folder.is_dir():
            os.utime(folder)
        else:
            folder.mkdir(parents=True)
            _remove_oldest(base, folder)
    # numba reads this once, when it is imported.
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return folder


def _remove_oldest(base: Path, folder: Path) -> None:
    import shutil

    others = [path for path in base.glob(f"{_FOLDER_PREFIX}*") if path != folder]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in others[_MAX_FOLDERS - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


class _Part:
    """A function of kernels, as numba sees it when it compiles what calls it."""

    is_inlined = True

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function

    def __call__(self, *arguments: Any) -> Any:
        return self.py_func(*arguments)

    @functools.cached_property
    def part(self) -> Any:
        """What numba makes of the function, which imports numba."""
        return _compiler().part(self.py_func, is_inlined=self.is_inlined)

    @property
    def _numba_type_(self) -> Any:
        """The type by which numba knows a function that compiled code calls."""
        return self.part._numba_type_


class _Kernel(_Part):
    """A kernel that is called from Python: its machine code for each choice of types."""

    is_inlined = False

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._run: machine_code.Native = self._find
        self._found: dict[str, tuple[machine_code.Native, dict[str, object]]] = {}
        self._lock = threading.RLock()

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def _find(self, *arguments: Any) -> Any:
        """Call the code for arguments that no code that is loaded takes as they are."""
        if not machine_code.is_supported():
            self._run = self._dispatcher
            return self._run(*arguments)
        types = ",".join(map(machine_code.described, arguments))
        with self._lock:
            if types not in self._found:
                self._found[types] = self._made(types, arguments)
        function, objects = self._found[types]
        views = machine_code.adapted(arguments, objects)
        return function(*views)

    def _made(
        self, types: str, arguments: tuple[Any, ...]
    ) -> tuple[machine_code.Native, dict[str, object]]:
        objects = {
            machine_code.NDARRAY: machine_code.ARRAY_TYPE,
            **dict(machine_code.objects_of(arguments)),
        }
        try:
            image = self._image(types, arguments)
            name = self.py_func.__name__
            function = machine_code.load(image, objects, name, self._dispatch)
            self._run = machine_code.load(image, objects, name, self._run)
        except machine_code.UnsupportedError:
            return self._dispatch, objects
        return function, objects

    @functools.cached_property
    def _dispatcher(self) -> Any:
        """The kernel as numba itself compiles, caches and calls it."""
        return _compiler().dispatcher(self.py_func)

    def _dispatch(self, *arguments: Any) -> Any:
        return self._dispatcher(*arguments)

    @property
    def signatures(self) -> list[str]:
        """The types of arguments for which code is loaded."""
        return list(self._found)

    def _image(self, types: str, arguments: tuple[Any, ...]) -> machine_code.Image:
        """Return the code for some types, from the disk or newly compiled."""
        what = f"{self.py_func.__module__}.{self.py_func.__qualname__}"
        identity = f"{what}({types}) {machine_code.environment_digest()}".encode()
        digest = hashlib.blake2b(identity, digest_size=8).hexdigest()
        path = cache_folder() / f"{what.rpartition('mdtool.')[2]}-{digest}{_SUFFIX}"
        with contextlib.suppress(OSError, machine_code.DamagedError):
            return machine_code.Image.from_bytes(path.read_bytes())
        _look_at_cache()
        image = compiled_elsewhere(self.py_func, arguments) or self.compiled(arguments)
        with contextlib.suppress(OSError):  # full or read-only: the next process compiles, too
            _write(path, image.to_bytes())
        return image

    def compiled(self, arguments: tuple[Any, ...]) -> machine_code.Image:
        """Return the code for the types of arguments, newly compiled, which imports numba."""
        image: machine_code.Image = _compiler().compile_image(self.part, arguments)
        return image


def _write(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _why_not_cached() -> str:
    """Return why nothing can be written to the cache folder, empty where it can."""
    folder = cache_folder()
    if home() is None and folder.is_relative_to(_NOWHERE):
        return "this user has no home"
    probe = folder / f"probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(probe, bytes(_PROBED_BYTES))
        probe.unlink()
    except OSError as error:
        return f"{folder}: {os.strerror(error.errno or 0)}"
    return ""


@functools.cache
def _look_at_cache() -> None:
    """Have the notice say why kernels are compiled again and again, where they are."""
    Notice.why_not_cached = _why_not_cached()


@functools.cache
def _compiler() -> Any:
    """Import numba, with its notices and its cache folder."""
    _look_at_cache()
    from mdtool.core import kernel_compiler

    return kernel_compiler


def _is_disabled() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}


def kernel(function: F) -> F:
    """Compile a function over arrays and scalars on its first use, and keep it on disk.

    It is called with positional arguments: arrays in C order, integers, floats, booleans, and named
    tuples of these, and returns such scalars, a tuple of them, or nothing. It allocates nothing.

    Inside kernels every integer is int64: numba turns int64 with uint64 into float64, so callers
    pass unsigned 64-bit fields as `int64` views. Arithmetic that wraps around, such as a hash, is
    the exception: numba promises LLVM that signed integers never do, so it is written in
    `np.uint64`, constants and shift counts included.
    """
    return function if _is_disabled() else cast("F", _Kernel(function))


def inlined(function: F) -> F:
    """Make a function part of the kernels that call it, without reference counts.

    Counting references to the arrays that it is given would cost more than what it does (a book's
    events were applied at a quarter of the speed), so it can neither make nor return arrays.
    """
    return function if _is_disabled() else cast("F", _Part(function))
