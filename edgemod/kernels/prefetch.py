"""Asking the processor for memory before it is read.

A kernel that reads at random from a table larger than the caches waits for most of what it reads.
A processor goes on with what comes after, but only a few hundred instructions. A prefetch waits
for nothing, so as many are under way as the memory takes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _prefetch(_: Any, array: Any, index: Any) -> Any:
    """Fetch element ``index`` of a contiguous array, counted flat, and its neighbours in a line.

    It is a hint (LLVM's ``llvm.prefetch``, for reading, into the nearest cache): nothing is read
    or changed, whatever the index.
    """

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.bitcast(builder.gep(held.data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kinds = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kinds)
        builder.call(hint, [place, number(0), number(3), number(1)])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, index), build


prefetch: Any = intrinsic(_prefetch)
