"""Schur forms from LAPACK, callable inside compiled loops.

SciPy publishes the addresses of its LAPACK routines. They are passed to the kernels as integers at
run time, so compiled kernels can be kept on disk; a pointer held as a constant could not.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

__all__ = ["fill_schur", "schur_address"]

NOT_SORTED, VECTORS = 78, 86  # the letters "N" and "V"


def schur_address(is_complex: bool) -> int:
    """Return the address of gees for float64 or complex128."""
    name = "zgees" if is_complex else "dgees"
    return get_cython_function_address("scipy.linalg.cython_lapack", name)


@intrinsic
def _call(typing_context, address, arguments):
    """Call the C function at an address; all its arguments are pointers, given as integers."""
    signature = types.void(address, arguments)

    def generate(context, builder, _, values):
        pointer, packed = values
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * len(arguments))
        function = builder.inttoptr(pointer, kind.as_pointer())
        builder.call(function, cgutils.unpack_tuple(builder, packed, len(arguments)))
        return context.get_dummy_value()

    return signature, generate


@njit(cache=True, nogil=True)
def fill_schur(gees, A, Z, real_parts, other_parts, work, flags) -> int:
    """Overwrite A (n, n) by its Schur form T, ``A = Z T Z^*``; return LAPACK's info.

    The arrays hold the transposes: ``A[j, i]`` is the entry (i, j). real_parts (n,) and
    other_parts (n,): real and imaginary parts (real dtype), or eigenvalues and real workspace
    (complex dtype). work (N,) of the dtype, flags (n,) int32.
    """
    n = A.shape[0]
    letters = np.array([VECTORS, NOT_SORTED], dtype=np.uint8)
    sizes = np.array([n, 0, work.shape[0], 0], dtype=np.int32)  # n, sdim, lwork, info
    one, size = letters.ctypes.data, sizes.ctypes.data
    if is_complex(A):
        _call(
            gees,
            (
                one,
                one + 1,
                0,
                size,
                A.ctypes.data,
                size,
                size + 4,
                real_parts.ctypes.data,
                Z.ctypes.data,
                size,
                work.ctypes.data,
                size + 8,
                other_parts.ctypes.data,
                flags.ctypes.data,
                size + 12,
            ),
        )
    else:
        _call(
            gees,
            (
                one,
                one + 1,
                0,
                size,
                A.ctypes.data,
                size,
                size + 4,
                real_parts.ctypes.data,
                other_parts.ctypes.data,
                Z.ctypes.data,
                size,
                work.ctypes.data,
                size + 8,
                flags.ctypes.data,
                size + 12,
            ),
        )
    return sizes[3]


@njit(cache=True, inline="always")
def is_complex(A):
    """Return whether the array is complex: a complex number has twice the bytes."""
    return A.itemsize == 16
