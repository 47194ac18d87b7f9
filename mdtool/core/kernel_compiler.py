"""How numba compiles kernels, and how its code is linked into an image that runs without it."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import numba
from llvmlite import ir
from numba.core import caching, cgutils, codegen, types
from numba.core import event as numba_event
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.np import arrayobj

from mdtool.core import interrupts
from mdtool.core.compiling import Notice
from mdtool.core.machine_code import NDARRAY, Image, UnsupportedError, address_of

_PAGE: Final = 4096

_WORD = ir.IntType(64)
_INT = ir.IntType(32)
_POINTER = ir.IntType(8).as_pointer()
_VOID = ir.VoidType()

# Where CPython and numpy keep the fields of objects; `machine_code.is_supported` checks them.
_OBJECT_TYPE, _TUPLE_ITEMS = 8, 24
_ARRAY_DATA, _ARRAY_NDIM, _ARRAY_DIMS, _ARRAY_DTYPE, _ARRAY_FLAGS = 16, 24, 32, 56, 64
_IS_C_ALIGNED, _IS_WRITEABLE = 0x101, 0x400


def part(function: Callable[..., Any], *, is_inlined: bool) -> Any:
    """Return what numba makes of a function that kernels call, or of a kernel that is linked.

    It counts no references to arrays, which kernels neither make nor return, and has no function
    around it that Python could call, which would take as long again to compile.
    """
    # `_nrt` and what follows it are options of numba's that its type stubs leave out.
    decorate = numba.njit(  # type: ignore[call-overload]
        nogil=True,
        error_model="numpy",
        forceinline=is_inlined,
        _nrt=False,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )
    return decorate(function)


def dispatcher(function: Callable[..., Any]) -> Any:
    """Return numba's own form of a kernel, which numba caches."""
    made: Any = numba.njit(nogil=True, error_model="numpy")(function)
    made._cache = _KernelCache(function)  # noqa: SLF001 - what `cache=True` would set
    return made


_ProvidedLocator: Any = next(
    getattr(caching, name)
    for name in ("UserProvidedCacheLocator", "_UserProvidedCacheLocator")
    if hasattr(caching, name)
)


class _Locator(_ProvidedLocator):  # type: ignore[misc]
    """Finds the folder of `jit.cache_folder`, also where it cannot be written."""

    def ensure_cache_path(self) -> None:
        with contextlib.suppress(OSError):
            super().ensure_cache_path()


class _CacheFiles(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - as numba has it


class _KernelCache(caching.FunctionCache):
    """numba's cache; kernels are compiled where it is read-only, full or another user's."""

    _impl_class = _CacheFiles

    def load_overload(self, *arguments: Any) -> Any:
        with contextlib.suppress(OSError):
            return super().load_overload(*arguments)
        return None

    def save_overload(self, *arguments: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(*arguments)


class _CompileNotice(numba_event.Listener):
    """Says that a kernel is being compiled."""

    def on_start(self, _event: object) -> None:
        Notice.say()

    def on_end(self, _event: object) -> None:
        """Stay quiet: the command's own output follows."""


class _InterruptKeeper(numba_event.Listener):
    """Keeps an interrupt that comes while LLVM calls back, as what is raised there is lost."""

    _CALLBACKS: Final = {"_raw_object_cache_notify", "_raw_object_cache_getbuffer"}

    def __init__(self) -> None:
        self._depth = 0
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._pending: int | None = None

    def on_start(self, _event: object) -> None:
        if not _is_main():
            return
        if not self._depth:
            self._handlers = interrupts.handlers()
            for number in self._handlers:
                signal.signal(number, self._received)
        self._depth += 1

    def on_end(self, _event: object) -> None:
        if not _is_main():
            return
        self._depth -= 1
        if not self._depth:
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._received:
                    signal.signal(number, handler)
        pending, self._pending = self._pending, None
        if pending is not None:
            self._handlers[pending](pending, None)

    def _received(self, number: int, frame: FrameType | None) -> None:
        at = frame
        while at is not None:
            if at.f_code.co_name in self._CALLBACKS:
                self._pending = number
                return
            at = at.f_back
        self._handlers[number](number, frame)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


numba_event.register("numba:compile", _CompileNotice())
numba_event.register("numba:compiler_lock", _InterruptKeeper())


class _Codegen(codegen.AOTCPUCodegen):
    """Position-independent code for this CPU, or for the one that NUMBA_CPU_NAME names."""

    def __init__(self) -> None:
        super().__init__("mdtool", cpu_name="host")

    def _customize_tm_features(self) -> str:
        if "NUMBA_CPU_NAME" in os.environ and "NUMBA_CPU_FEATURES" not in os.environ:
            return ""  # those of that CPU, not of this one
        features: str = self._get_host_cpu_features()
        return features


@global_compiler_lock
def compile_image(kernel: Any, arguments: tuple[object, ...]) -> Image:
    """Compile a kernel for arguments like these and link it.

    Parameters
    ----------
    kernel : dispatcher
        The kernel, as `part` returned it.
    arguments : tuple
        Whose types are compiled for; integers are int64, arrays in C order.

    Raises
    ------
    UnsupportedError
        numba compiles it in its own way only, or not at all.
    """
    kinds = tuple(_kind(argument) for argument in arguments)
    begun_s = time.perf_counter()
    try:
        kernel.compile(kinds)
    except NumbaError as error:
        raise UnsupportedError(str(error)) from error
    result = kernel.overloads[kinds]
    made = _Codegen()
    library = made.create_library("entry")
    context = result.target_context
    module = library.create_ir_module("entry")
    _Entry(context, module, result.fndesc, kinds).build()
    library.add_ir_module(module)
    library.add_linking_library(result.library)
    image = link(library.emit_native_object(), "mdtool_entry")
    if sys.stderr.isatty():
        name = f"{kernel.py_func.__module__}.{kernel.py_func.__name__}"
        print(f"mdtool: compiled {name} in {time.perf_counter() - begun_s:.1f} s", file=sys.stderr)
    return image


def _kind(argument: object) -> Any:
    """Return numba's type of an argument."""
    if isinstance(argument, tuple):
        items = [_kind(item) for item in argument]
        if hasattr(argument, "_fields"):
            return types.BaseTuple.from_types(items, type(argument))
        return types.BaseTuple.from_types(items)
    kind = numba.typeof(argument)
    if isinstance(kind, types.Integer) and kind != types.uint64:
        return types.int64
    if isinstance(kind, types.Array):
        # Of records numba never says that they are aligned, and compiles accordingly.
        is_aligned = kind.aligned or isinstance(kind.dtype, types.Record)
        is_plain = kind.layout == "C" and is_aligned
    else:
        is_plain = False
    if is_plain or kind in {types.int64, types.uint64, types.float64, types.boolean}:
        return kind
    raise UnsupportedError(f"arguments of type {kind}")


def _is_tuple(kind: Any) -> bool:
    return isinstance(kind, types.BaseTuple)


class _Entry:
    """The function around a kernel that CPython calls: `self, arguments, count` -> object."""

    def __init__(
        self, context: Any, module: ir.Module, kernel: Any, kinds: tuple[Any, ...]
    ) -> None:
        self._context, self._module, self._kernel, self._kinds = context, module, kernel, kinds
        self._function = ir.Function(
            module, ir.FunctionType(_POINTER, [_POINTER, _POINTER, _WORD]), "mdtool_entry"
        )
        self._builder = ir.IRBuilder(self._function.append_basic_block("begin"))
        self._other = self._function.append_basic_block("other_types")
        self._failed = self._function.append_basic_block("failed")

    def build(self) -> None:
        """Write the function: check, unpack, call without the interpreter's lock, pack."""
        builder = self._builder
        _, given, count = self._function.args
        self._expect(builder.icmp_signed("==", count, ir.Constant(_WORD, len(self._kinds))))
        values = [
            self._unpack(self._load(given, 8 * at, _POINTER), kind, f".{at}")
            for at, kind in enumerate(self._kinds)
        ]
        context, kernel = self._context, self._kernel
        signature = context.call_conv.get_function_type(kernel.restype, kernel.argtypes)
        callee = ir.Function(self._module, signature, kernel.llvm_func_name)
        thread = self._call("PyEval_SaveThread", _POINTER)
        status, value = context.call_conv.call_function(
            builder, callee, kernel.restype, kernel.argtypes, values
        )
        self._call("PyEval_RestoreThread", _VOID, thread)
        with builder.if_then(status.is_error, likely=False):
            kind = self._load(self._external("PyExc_RuntimeError"), 0, _POINTER)
            text = cgutils.global_constant(
                self._module, "failure", cgutils.make_bytearray(b"a kernel failed\0")
            )
            self._call("PyErr_SetString", _VOID, kind, builder.bitcast(text, _POINTER))
            builder.branch(self._failed)
        builder.ret(self._pack(value, kernel.restype))
        builder.position_at_end(self._failed)
        builder.ret(ir.Constant(_POINTER, None))
        builder.position_at_end(self._other)
        nothing = ir.Constant(_POINTER, None)
        owner = self._function.args[0]
        builder.ret(self._call("PyObject_Vectorcall", _POINTER, owner, given, count, nothing))

    def _unpack(self, thing: ir.Value, kind: Any, place: str) -> ir.Value:
        """Return an argument as numba holds it; go to `other_types` where it is another type."""
        builder, context = self._builder, self._context
        if isinstance(kind, types.Array):
            return self._unpack_array(thing, kind, place)
        if _is_tuple(kind):
            self._expect_same(thing, _OBJECT_TYPE, f"type{place}")
            items = [
                self._unpack(
                    self._load(thing, _TUPLE_ITEMS + 8 * at, _POINTER), item, f"{place}.{at}"
                )
                for at, item in enumerate(kind)
            ]
            return context.make_tuple(builder, kind, items)
        if kind == types.float64:
            value = self._call("PyFloat_AsDouble", ir.DoubleType(), thing)
            unlikely = builder.fcmp_ordered("==", value, ir.Constant(value.type, -1.0))
        elif kind == types.boolean:
            value = self._call("PyObject_IsTrue", _INT, thing)
            unlikely = builder.icmp_signed("<", value, ir.Constant(_INT, 0))
        else:
            number = self._call("PyNumber_Index", _POINTER, thing)
            with builder.if_then(cgutils.is_null(builder, number), likely=False):
                builder.branch(self._failed)
            name = "PyLong_AsLongLong" if kind == types.int64 else "PyLong_AsUnsignedLongLong"
            value = self._call(name, _WORD, number)
            self._call("Py_DecRef", _VOID, number)
            unlikely = builder.icmp_signed("==", value, ir.Constant(_WORD, -1))
        with builder.if_then(unlikely, likely=False):
            raised = self._call("PyErr_Occurred", _POINTER)
            with builder.if_then(cgutils.is_not_null(builder, raised)):
                builder.branch(self._failed)
        if kind == types.boolean:
            return builder.icmp_signed("!=", value, ir.Constant(_INT, 0))
        return value

    def _unpack_array(self, thing: ir.Value, kind: Any, place: str) -> ir.Value:
        builder, context = self._builder, self._context
        self._expect_same(thing, _OBJECT_TYPE, NDARRAY)
        self._expect_same(thing, _ARRAY_DTYPE, f"dtype{place}")
        wanted = ir.Constant(_INT, _IS_C_ALIGNED | (_IS_WRITEABLE if kind.mutable else 0))
        flags = builder.and_(self._load(thing, _ARRAY_FLAGS, _INT), wanted)
        self._expect(builder.icmp_signed("==", flags, wanted))
        ndim = self._load(thing, _ARRAY_NDIM, _INT)
        self._expect(builder.icmp_signed("==", ndim, ir.Constant(_INT, kind.ndim)))
        dims = self._load(thing, _ARRAY_DIMS, _POINTER)
        shape = [self._load(dims, 8 * at, _WORD) for at in range(kind.ndim)]
        step = ir.Constant(_WORD, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
        strides = [step]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        array = arrayobj.make_array(kind)(context, builder)
        data = self._load(thing, _ARRAY_DATA, _POINTER)
        arrayobj.populate_array(
            array,
            data=builder.bitcast(data, array.data.type),
            shape=shape,
            strides=strides,
            itemsize=step,
            meminfo=None,
        )
        return array._getvalue()  # noqa: SLF001 - numba's own name for it

    def _pack(self, value: ir.Value, kind: Any) -> ir.Value:
        """Return a result as an object."""
        if kind == types.none:
            nothing = self._external("_Py_NoneStruct")
            self._call("Py_IncRef", _VOID, nothing)
            return nothing
        if _is_tuple(kind):
            packed = self._call("PyTuple_New", _POINTER, ir.Constant(_WORD, len(kind)))
            for at, item in enumerate(kind):
                thing = self._pack(self._builder.extract_value(value, at), item)
                self._call("PyTuple_SetItem", _INT, packed, ir.Constant(_WORD, at), thing)
            return packed
        if kind == types.boolean:
            return self._call("PyBool_FromLong", _POINTER, self._builder.zext(value, _WORD))
        if kind == types.float64:
            return self._call("PyFloat_FromDouble", _POINTER, value)
        if kind == types.uint64:
            return self._call("PyLong_FromUnsignedLongLong", _POINTER, value)
        if isinstance(kind, types.Integer):
            wide = self._context.cast(self._builder, value, kind, types.int64)
            return self._call("PyLong_FromLongLong", _POINTER, wide)
        raise UnsupportedError(f"results of type {kind}")

    def _expect(self, is_so: ir.Value) -> None:
        """Continue where a condition holds, else branch to `other_types`."""
        block = self._builder.append_basic_block()
        self._builder.cbranch(is_so, block, self._other)
        self._builder.position_at_end(block)

    def _expect_same(self, thing: ir.Value, offset: int, symbol: str) -> None:
        """Expect that an object holds the address of what a symbol is."""
        held = self._load(thing, offset, _POINTER)
        self._expect(self._builder.icmp_unsigned("==", held, self._external(symbol)))

    def _load(self, thing: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
        at = self._builder.gep(self._builder.bitcast(thing, _POINTER), [ir.Constant(_WORD, offset)])
        return self._builder.load(self._builder.bitcast(at, kind.as_pointer()))

    def _external(self, name: str) -> ir.Value:
        return self._module.globals.get(name) or ir.GlobalVariable(
            self._module, ir.IntType(8), name
        )

    def _call(self, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self._builder.call(
            cgutils.get_or_insert_function(self._module, kind, name), arguments
        )


# ELF for x86-64. Source: System V Application Binary Interface, AMD64 supplement, chapter 4.
_ALLOC, _WRITE = 0x2, 0x1
_SYMTAB, _RELA, _NOBITS = 2, 4, 8
_UNDEFINED, _COMMON = 0, 0xFFF2
_COMMON_BYTES: Final = 16
_R_64, _R_PC32, _R_PLT32, _R_GOTPCREL, _R_GOTPCRELX, _R_REX_GOTPCRELX = 1, 2, 4, 9, 41, 42
_STUB: Final = b"\xff\x25\0\0\0\0\xcc\xcc"
"""A jump to the address in a slot of the table."""


def link(data: bytes, entry: str) -> Image:
    """Link an object file: lay out its sections, and make what it refers to relative."""
    return _Linker(data).link(entry)


class _Linker:
    """The sections of one object file, as they are laid out in the body of an image."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        (at,) = struct.unpack_from("<Q", data, 40)
        size, count, self._names = struct.unpack_from("<HHH", data, 58)
        self._sections = [
            struct.unpack_from("<IIQQQQIIQQ", data, at + size * k) for k in range(count)
        ]
        self._starts: dict[int, int] = {}
        self._body = bytearray()
        self._slots: dict[str | int, int] = {}
        self._external: dict[str, list[int]] = {}
        self._places: list[list[int]] = []

    def link(self, entry: str) -> Image:
        """Lay out code, stubs, data and the table of addresses; fill in what is relative."""
        symbols = self._read_symbols()
        self._place(is_written=False)
        self._pad(len(_STUB))
        stubs = {}
        for name, section, _ in symbols:
            if section == _UNDEFINED and name:
                stubs[name] = len(self._body)
                self._body += _STUB
        self._pad(_PAGE)
        code_bytes = len(self._body)
        self._place(is_written=True)
        self._pad(_COMMON_BYTES)
        targets = [self._target(*symbol) for symbol in symbols]
        for name, stub in stubs.items():
            self._put_relative(stub + 2, self._slot(name) - 4)
        for section, offset, kind, symbol, addend in self._read_relocations():
            if section not in self._starts:
                continue
            at, target = self._starts[section] + offset, targets[symbol]
            if kind in {_R_PC32, _R_PLT32}:
                place = stubs[target] if isinstance(target, str) else target
                self._put_relative(at, place + addend)
            elif kind in {_R_GOTPCREL, _R_GOTPCRELX, _R_REX_GOTPCRELX}:
                self._put_relative(at, self._slot(target) + addend)
            elif kind == _R_64 and at >= code_bytes:
                self._refer(at, target if isinstance(target, str) else target + addend)
            else:
                raise UnsupportedError(f"relocations of type {kind}")
        self._pad(_PAGE)
        (begin,) = (
            target
            for target, (name, _, _) in zip(targets, symbols, strict=True)
            if name == entry and isinstance(target, int)
        )
        for name in self._external:
            if not name.startswith(("type.", "dtype.")):
                address_of(name)
        return Image(bytes(self._body), code_bytes, begin, self._external, self._places)

    def _target(self, name: str, section: int, value: int) -> str | int:
        """Return where a symbol lies in the body, or its name where it is outside."""
        if section == _COMMON:  # a variable of numba's, a pointer
            self._body += bytes(_COMMON_BYTES)
            return len(self._body) - _COMMON_BYTES
        return self._starts[section] + value if section in self._starts else name

    def _slot(self, target: str | int) -> int:
        """Return where the table holds an address."""
        if target not in self._slots:
            self._slots[target] = len(self._body)
            self._refer(len(self._body), target)
            self._body += bytes(8)
        return self._slots[target]

    def _refer(self, at: int, target: str | int) -> None:
        """Have an address filled in when the image is loaded."""
        if isinstance(target, str):
            self._external.setdefault(target, []).append(at)
        else:
            self._places.append([at, target])

    def _put_relative(self, at: int, value: int) -> None:
        struct.pack_into("<i", self._body, at, value - at)

    def _place(self, *, is_written: bool) -> None:
        """Copy sections into the body; what unwinds the stack is left out."""
        for number, header in enumerate(self._sections):
            name, kind, flags, _, offset, size, _, _, alignment, _ = header
            is_unwinding = self._text(self._sections[self._names], name).startswith(".eh_frame")
            if not flags & _ALLOC or is_unwinding or bool(flags & _WRITE) != is_written:
                continue
            self._pad(max(alignment, 1))
            self._starts[number] = len(self._body)
            self._body += bytes(size) if kind == _NOBITS else self._data[offset : offset + size]

    def _pad(self, alignment: int) -> None:
        self._body += bytes(-len(self._body) % alignment)

    def _read_symbols(self) -> list[tuple[str, int, int]]:
        (table,) = (header for header in self._sections if header[1] == _SYMTAB)
        texts = self._sections[table[6]]
        rows = struct.iter_unpack("<IBBHQQ", self._data[table[4] : table[4] + table[5]])
        return [(self._text(texts, name), section, value) for name, _, _, section, value, _ in rows]

    def _read_relocations(self) -> list[tuple[int, int, int, int, int]]:
        found = []
        for header in self._sections:
            if header[1] == _RELA:
                rows = struct.iter_unpack("<QQq", self._data[header[4] : header[4] + header[5]])
                found += [
                    (header[7], offset, info & 0xFFFFFFFF, info >> 32, addend)
                    for offset, info, addend in rows
                ]
        return found

    def _text(self, table: Any, at: int) -> str:
        begin = table[4] + at
        return self._data[begin : self._data.index(b"\0", begin)].decode()
