"""The C heap of a worker: how many parts it has, and when it gives back what is free.

Problem: fetched records lie between short-lived buffers of a MiB and more, so the free memory of glibc's heaps comes to
several times what is in use (measured: 210 MB beside 30 MB) and the peak of one bad hour would stay for ever.

Elsewhere than on glibc nothing is done here.
"""

from __future__ import annotations

import ctypes

#: glibc's name for the number of heaps that threads spread over (malloc.h).
_M_ARENA_MAX = -8
#: librdkafka's threads pass buffers to one another; with the default of 16 heaps a worker keeps 50 to 100 MB more.
_ARENAS = 2
#: Kept at the end of a heap when the rest is given back: what the next batches take again.
_KEEP_BYTES = 16 * 1_048_576

_libc = ctypes.CDLL(None)


def bound() -> None:
    """Call before threads allocate."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return free memory to the system: 3 to 8 ms for 200 MB, without the GIL."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(_KEEP_BYTES))
