"""Machine code of kernels: its form on disk, and how it becomes a function of Python.

An image is what a linker makes of an object file: code, then data, then a table of addresses. Code
refers to all else relative to itself, so loading needs no compiler: it is a copy, the filling in of
addresses and one `mprotect`. The function takes Python's objects as they are, and reads arrays
where numpy keeps their fields.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import mmap
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

_MAGIC: Final = b"mdtoolk1"
_DIGEST_BYTES: Final = 16
_METH_FASTCALL: Final = 0x80
_PAGE: Final = mmap.PAGESIZE

_CPU_NAME: Final = "NUMBA_CPU_NAME"
"""The variable that names the CPU to compile for."""
CPU_INFO: Final = Path("/proc/cpuinfo")

NDARRAY: Final = "type.ndarray"
"""The symbol of numpy's array type."""

ARRAY_TYPE: Final = np.ndarray
_SCALARS: Final = (
    ((bool, np.bool_), "bool"),
    ((float, np.floating), "float64"),
    (np.uint64, "uint64"),
    ((int, np.integer), "int64"),
)
Native = Callable[..., Any]


class UnsupportedError(Exception):
    """Machine code cannot be made or run here: the kernel is left to numba."""


class DamagedError(Exception):
    """An image on disk is not what was written."""


@dataclass(frozen=True, slots=True)
class Image:
    """Linked code: `body` without its addresses, and which addresses go where."""

    body: bytes
    code_bytes: int
    """The first part, in whole pages: what is read and run, and not written."""
    entry: int
    """The offset of the function."""
    symbols: dict[str, list[int]]
    """What is outside, and where its address goes."""
    places: list[list[int]]
    """Pairs: where an address goes, and which place of this image it is of."""

    def to_bytes(self) -> bytes:
        """Return the form on disk, which begins with a digest of the rest."""
        about = {name: value for name, value in asdict(self).items() if name != "body"}
        head = json.dumps(about).encode()
        rest = struct.pack("<I", len(head)) + head + self.body
        return _MAGIC + _digest(rest) + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """Read the form on disk; `DamagedError` where a byte of it has changed."""
        begin = len(_MAGIC) + _DIGEST_BYTES
        rest = data[begin:]
        if data[:begin] != _MAGIC + _digest(rest):
            raise DamagedError
        (length,) = struct.unpack_from("<I", rest)
        return cls(body=rest[4 + length :], **json.loads(rest[4 : 4 + length]))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_alive: Final[list[object]] = []
"""Code in memory and what it refers to, which stay as long as the process."""


def load(image: Image, objects: dict[str, object], name: str, otherwise: Native) -> Native:
    """Put an image into memory and return its function.

    Parameters
    ----------
    image : Image
        The code.
    objects : dict
        The Python objects that some of its symbols are: types of arguments, dtypes of arrays.
    name : str
        What the function is called.
    otherwise : callable
        What the function calls instead with arguments that are not of its types.
    """
    memory = mmap.mmap(-1, len(image.body), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = image.body
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at, place in image.places:
        struct.pack_into("<Q", memory, at, start + place)
    for symbol, positions in image.symbols.items():
        address = id(objects[symbol]) if symbol in objects else address_of(symbol)
        for at in positions:
            struct.pack_into("<Q", memory, at, address)
    libc = ctypes.CDLL(None)
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(image.code_bytes), protection):
        raise UnsupportedError("memory cannot be made executable")
    method = _MethodDef(name.encode(), start + image.entry, _METH_FASTCALL, None)
    _alive.extend((memory, method, objects))
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    function: Native = make(ctypes.addressof(method), otherwise, None)
    return function


def address_of(symbol: str) -> int:
    """Return the address of a function or a variable of Python's or the C library's."""
    try:
        return ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, symbol))
    except ValueError:
        raise UnsupportedError(f"no symbol {symbol}") from None


def described(argument: object) -> str:
    """Return the type of an argument as text, the same for all that the same code can take."""
    if isinstance(argument, np.ndarray):
        flags = argument.flags
        order = "C" if flags.c_contiguous and flags.aligned else "any"
        access = "w" if flags.writeable else "r"
        dtype = argument.dtype.str if argument.dtype.names is None else str(argument.dtype)
        return f"{dtype}[{argument.ndim}{order}{access}]"
    if isinstance(argument, tuple):
        return f"{type(argument).__qualname__}({','.join(map(described, argument))})"
    for kind, name in _SCALARS:
        if isinstance(argument, kind):
            return name
    return type(argument).__qualname__


def objects_of(arguments: tuple[object, ...], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Return the objects that code for such arguments compares with, by their symbols."""
    for number, argument in enumerate(arguments):
        place = f"{prefix}.{number}"
        if isinstance(argument, np.ndarray):
            yield f"dtype{place}", argument.dtype
        elif isinstance(argument, tuple):
            yield f"type{place}", type(argument)
            yield from objects_of(argument, place)


def adapted(
    arguments: tuple[object, ...], objects: dict[str, object], prefix: str = ""
) -> tuple[Any, ...]:
    """Return arguments as views of exactly the types and dtypes that code compares with."""
    views: list[Any] = []
    for number, argument in enumerate(arguments):
        place = f"{prefix}.{number}"
        view = argument
        if isinstance(argument, np.ndarray):
            dtype = objects[f"dtype{place}"]
            if type(argument) is not np.ndarray:
                view = argument.view(np.ndarray)
            if argument.dtype is not dtype:
                view = view.view(dtype)  # type: ignore[attr-defined]
        elif isinstance(argument, tuple):
            inner = adapted(argument, objects, place)
            kind: Any = objects[f"type{place}"]
            view = kind(*inner) if hasattr(kind, "_fields") else inner
        views.append(view)
    return tuple(views)


@cache
def is_supported() -> bool:
    """Return whether code is loaded here, by a look at where numpy keeps an array's fields."""
    is_known = (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and sys.implementation.name == "cpython"
    )
    if not is_known or sys.getsizeof(object()) != 16:
        return False
    seen = np.zeros((3, 5), np.int64)
    fields = struct.unpack("<QiiQQQQi", ctypes.string_at(id(seen) + 16, 52))
    data, ndim, _, dims, _, _, descr, flags = fields
    shape = struct.unpack("<QQ", ctypes.string_at(dims, 16))
    held = (data, ndim, shape, descr, flags & 0x501)
    return held == (seen.ctypes.data, 2, seen.shape, id(seen.dtype), 0x501)


def environment_digest() -> str:
    """Return what identifies the compiler, its options, Python, numpy and the CPU.

    It is the CPU of this machine, unless numba's variable names another.
    """
    digest = hashlib.blake2b(digest_size=8)
    parts = [sys.version, np.__version__]
    for name in ("numba", "llvmlite"):
        spec = importlib.util.find_spec(name)
        folders = spec.submodule_search_locations if spec else None
        parts += [(Path(folder) / "_version.py").read_text() for folder in folders or ()]
    parts += [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith("NUMBA_") and name != "NUMBA_CACHE_DIR"
    ]
    parts += [platform.machine()] if _CPU_NAME in os.environ else _cpu()
    digest.update("\n".join(parts).encode())
    return digest.hexdigest()


def _cpu() -> list[str]:
    """Return what identifies the CPU of this machine."""
    parts = []
    try:
        with CPU_INFO.open() as cpus:
            for line in cpus:
                if line.startswith(("model name", "flags")):
                    parts.append(line)
                elif not line.strip():
                    break
    except OSError:  # no /proc: code of another machine might not run here
        parts.append(platform.node())
    return parts
