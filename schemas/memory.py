"""Raw memory for kernels: loads, stores, copies and SHA-256 at plain addresses.

Problem: a batch lives in memory that librdkafka owns, and a Python object per event costs more than the work on it.
So kernels take addresses (int64) and read through the few functions below. Compiled, each is one or two machine
instructions or a direct C call; with NUMBA_DISABLE_JIT=1 the same names are plain Python over ctypes, so that every
kernel can also be run, and debugged, interpreted.

GUARANTEE none about bounds. HAZARD a wrong address kills the process: callers own the memory and check lengths first.

SHA-256 comes from OpenSSL's libcrypto through its init/update/final calls: the one-shot call of OpenSSL 3 costs about
0.8 us more because it looks the algorithm up each time. Where libcrypto cannot be loaded hashlib stands in, at about
ten times the cost. C functions are bound by symbol name, so compiled kernels can be cached on disk.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import cfunc, config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Function = TypeVar("Function", bound=Callable[..., Any])

_LINE_BYTES = 64
_WORD_BYTES = 8
#: False under NUMBA_DISABLE_JIT=1: kernels then run interpreted.
JIT: bool = not config.DISABLE_JIT  # type: ignore[attr-defined] # numba fills its settings in when imported

#: Bytes to reserve for a hash context (OpenSSL's SHA256_CTX is 112).
SHA256_CONTEXT_BYTES = 128

_word_at = ctypes.c_size_t.from_address
_C_TYPES: dict[str, Any] = {"int32": ctypes.c_int32, "int64": ctypes.c_int64, "void": None}

_IMPORTS = re.compile(rb"^(?:from|import) [^\n(]*(?:\([^)]*\))?", re.MULTILINE)
_COMPILES = re.compile(rb"^@(?:kernel|intrinsic)|intrinsic\(|c_function\(", re.MULTILINE)


def sources_state() -> str:
    """A name for the sources that compiled kernels come from: modules that compile, and all they import of ours.

    Compiled kernels are kept in a directory for each: numba notices a change of the file a kernel stands in, not of the
    functions and constants it takes from other files.
    """
    packages = [Path(__file__).parents[1] / package for package in ("schemas", "streams", "lifecycle")]
    texts = {file: file.read_bytes() for package in packages for file in sorted(package.glob("*.py"))}
    wanted = {file for file, text in texts.items() if _COMPILES.search(text)}
    new = wanted
    while new:
        words = {word for file in new for line in _IMPORTS.findall(texts[file]) for word in line.split()}
        names = {name.decode() for word in words for name in word.replace(b",", b".").split(b".")}
        new = {file for file in texts if file.stem in names} - wanted
        wanted = wanted | new
    return hashlib.sha256(b"".join(texts[file] for file in texts if file in wanted)).hexdigest()[:16]


if "NUMBA_CACHE_DIR" not in os.environ:
    _root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    config.CACHE_DIR = str(Path(_root) / "driftledger" / "kernels" / sources_state())  # type: ignore[attr-defined] # as above


def kernel(function: Function) -> Function:
    """Compile a function without the GIL, cached on disk, with exact arithmetic (no fastmath), and to own no memory.

    It works on arrays that its caller keeps alive, and counts no references to them: counting took half the time of
    the hot loops. So what would allocate (np.empty, lists, sort, array[a:b] = other) does not compile, and no array
    may be returned.
    """
    options: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False}
    return cast("Function", njit(**options)(function))


def address_of(array: np.ndarray[Any, Any]) -> int:
    """Address of the first element; the caller keeps the array alive while the address is in use.

    It stands behind the head of the object (numpy's PyArrayObject_fields, which its C interface promises); what numpy
    itself offers makes a dictionary first, at ten times the cost, which was 6 % of the Python of a paced worker.
    """
    return _word_at(id(array) + object.__basicsize__).value


def lined(rows: int, columns: int) -> NDArray[np.int64]:
    """Zeroed int64[rows, columns], the first row at the beginning of a cache line."""
    raw = np.zeros(rows * columns + _LINE_BYTES // _WORD_BYTES, np.int64)
    skip = -address_of(raw) % _LINE_BYTES // _WORD_BYTES
    return raw[skip : skip + rows * columns].reshape(rows, columns)


def bytes_at(address: int, length: int) -> bytes:
    """Copy of the bytes at an address."""
    return ctypes.string_at(address, length)


def bind(name: str, address: int, result: str, *arguments: str) -> Callable[..., Any]:
    """Make a C function callable from kernels, compiled or interpreted.

    Types are "int32", "int64" (also for every pointer) or "void". The name must be unique in the process: compiled
    code refers to it, so that it can be cached.
    """
    if JIT:
        llvm.add_symbol(name, address)
        signature = getattr(types, result)(*(getattr(types, a) for a in arguments))
        return cast("Callable[..., Any]", types.ExternalFunction(name, signature))
    return ctypes.CFUNCTYPE(_C_TYPES[result], *(_C_TYPES[a] for a in arguments))(address)


def c_function(function: Callable[..., None], *arguments: str) -> tuple[Any, int]:
    """Make a function that is written as a kernel callable from C: what keeps it alive, and its address.

    Types are those of `bind`; nothing is returned. Compiled, it runs without the GIL, and is cached on disk.
    """
    if JIT:
        compiled = cfunc(types.void(*(getattr(types, a) for a in arguments)), cache=True)(function)
        return compiled, int(compiled.address or 0)
    interpreted = ctypes.CFUNCTYPE(None, *(_C_TYPES[a] for a in arguments))(function)
    return interpreted, int(ctypes.cast(interpreted, ctypes.c_void_p).value or 0)


def _load(width: int, value_type: Any, result: Any) -> Callable[[int], Any]:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], value_type.as_pointer())
        value = builder.load(pointer)
        value.align = 1
        if width < 64:  # noqa: PLR2004 - bits of an int64
            return builder.zext(value, ir.IntType(64))
        return value

    @intrinsic
    def load(_typing_context: Any, _address: Any) -> Any:
        return result(types.int64), generate

    return cast("Callable[[int], Any]", load)


def _store(width: int) -> Callable[[int, int], None]:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value_type = ir.IntType(width)
        value = builder.trunc(arguments[1], value_type) if width < 64 else arguments[1]  # noqa: PLR2004
        instruction = builder.store(value, builder.inttoptr(arguments[0], value_type.as_pointer()))
        instruction.align = 1
        return context.get_dummy_value()

    @intrinsic
    def store(_typing_context: Any, _address: Any, _value: Any) -> Any:
        return types.void(types.int64, types.int64), generate

    return cast("Callable[[int, int], None]", store)


def _copy() -> Callable[[int, int, int], None]:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        target, source = (builder.inttoptr(a, byte) for a in arguments[:2])
        cgutils.raw_memcpy(builder, target, source, arguments[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    @intrinsic
    def copy_bytes(_typing_context: Any, _target: Any, _source: Any, _length: Any) -> Any:
        return types.void(types.int64, types.int64, types.int64), generate

    return cast("Callable[[int, int, int], None]", copy_bytes)


if JIT:
    load_u8 = _load(8, ir.IntType(8), types.int64)
    load_i64 = _load(64, ir.IntType(64), types.int64)
    load_f64 = _load(64, ir.DoubleType(), types.float64)
    store_u8 = _store(8)
    store_i64 = _store(64)
    copy = _copy()
else:

    def load_u8(address: int) -> int:
        """One unsigned byte, as int64."""
        return ctypes.c_uint8.from_address(int(address)).value

    def load_i64(address: int) -> int:
        """A little-endian int64, any alignment."""
        return int.from_bytes(ctypes.string_at(int(address), 8), "little", signed=True)

    def load_f64(address: int) -> float:
        """A little-endian IEEE double, any alignment."""
        return ctypes.c_double.from_buffer_copy(ctypes.string_at(int(address), 8)).value

    def store_u8(address: int, value: int) -> None:
        """The low byte of value."""
        ctypes.c_uint8.from_address(int(address)).value = int(value) & 0xFF

    def store_i64(address: int, value: int) -> None:
        """A little-endian int64, any alignment."""
        ctypes.memmove(int(address), (int(value) & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"), 8)

    def copy(target: int, source: int, length: int) -> None:
        """Like C's memcpy: the ranges must not overlap."""
        ctypes.memmove(int(target), int(source), int(length))


class _HashlibSha256:
    """OpenSSL's three calls over hashlib, for machines without a loadable libcrypto."""

    def __init__(self) -> None:
        self._open: dict[int, Any] = {}
        pointer = ctypes.c_int64
        self._keep = (
            ctypes.CFUNCTYPE(ctypes.c_int32, pointer)(self._init),
            ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer)(self._update),
            ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer)(self._final),
        )
        self.addresses = [cast("int", ctypes.cast(f, ctypes.c_void_p).value) for f in self._keep]

    def _init(self, context: int) -> int:
        self._open[context] = hashlib.sha256()
        return 1

    def _update(self, context: int, data: int, length: int) -> int:
        self._open[context].update(ctypes.string_at(data, length))
        return 1

    def _final(self, digest: int, context: int) -> int:
        ctypes.memmove(digest, self._open.pop(context).digest(), 32)
        return 1


_SHA_CALLS = ("SHA256_Init", "SHA256_Update", "SHA256_Final")
_HASHLIB = _HashlibSha256()


def _sha256_addresses() -> list[int]:
    path = ctypes.util.find_library("crypto")
    if path is None:
        return _HASHLIB.addresses
    try:
        library = ctypes.CDLL(path)
        functions = [getattr(library, name) for name in _SHA_CALLS]
    except (OSError, AttributeError):  # not loadable, or built without the low-level calls
        return _HASHLIB.addresses
    return [cast("int", ctypes.cast(f, ctypes.c_void_p).value) for f in functions]


_INIT, _UPDATE, _FINAL = _sha256_addresses()
#: sha256_init(context), sha256_update(context, data, length), sha256_final(digest, context): all addresses.
sha256_init = bind("driftledger_sha256_init", _INIT, "int32", "int64")
sha256_update = bind("driftledger_sha256_update", _UPDATE, "int32", "int64", "int64", "int64")
sha256_final = bind("driftledger_sha256_final", _FINAL, "int32", "int64", "int64")
