"""A hint to the processor: this address will be read soon.

Problem: the tables of judge do not fit in the near caches, so each event would wait about a hundred nanoseconds for
each of three or four lines. The rows of a batch are known ahead, so their lines can be asked for ahead.

GUARANTEE no effect but on time; any address is allowed, mapped or not. Interpreted it does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from schemas.memory import JIT

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = "llvm.prefetch.p0"


def _generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(32)
    hint = builder.module.globals.get(_NAME) or ir.Function(
        builder.module, ir.FunctionType(ir.VoidType(), [pointer, integer, integer, integer]), _NAME
    )
    to_write, keep_everywhere, data = integer(1), integer(3), integer(1)
    builder.call(hint, [builder.inttoptr(arguments[0], pointer), to_write, keep_everywhere, data])
    return context.get_dummy_value()


def _prefetch(_typing_context: Any, _address: Any) -> Any:
    return types.void(types.int64), _generate


def _ignore(address: int) -> None:
    """See the module."""
    del address


#: prefetch(address): the cache line of the address, to be read and written.
prefetch: Callable[[int], None] = cast("Callable[[int], None]", intrinsic(_prefetch)) if JIT else _ignore
