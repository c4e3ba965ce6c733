"""Prepares the memory of a process that forks, so that its forks share as much of it as they can.

A fork shares each page of memory with its parent until one of them writes to the page. After thousands of imports, the allocators
have small free places on most pages. A fork that puts its objects there would copy page after page. So this module fills the free
places first, and forks then take new pages.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
from collections.abc import Callable

# CPython allocates objects of up to 512 bytes in steps of 16 bytes, in pools of one size. See Objects/obmalloc.c.
STEP, LARGEST, POOL_BYTES, POOL_HEADER = 16, 512, 16_384, 48
BYTES_HEADER = 33  # sys.getsizeof(b"")
FILL_LIMIT_BYTES = 4_000_000  # for each size
# glibc keeps freed memory in bins by size. The sizes here go from the largest useful place to the smallest.
BIN_BYTES = (32_768, 16_384, 8_192, 4_096, 2_048, 1_536, 1_024, 768, 576)

_filling: list[list[object]] = []  # stays forever


def prepare_for_forks() -> None:
    """Collect garbage, fill the free places, and freeze everything. Call it once, after the imports and before the first fork."""
    gc.collect()
    fill_free_places()
    # Everything loaded so far stays forever. The collector would write to its memory pages and so unshare them.
    gc.freeze()


def fill_free_places() -> None:
    """Fill the free places in the pages that this process has already used. It takes about 3 MB of new pages."""
    _filling.extend(_fill_pools(size) for size in range(STEP, LARGEST + STEP, STEP))
    if sys.platform == "linux":
        _filling.extend(_fill_heap(size) for size in BIN_BYTES)


def _fill_pools(size: int) -> list[object]:
    """Allocate objects of this size until one whole new pool is full. Return them, or nothing if this Python has no such pools."""
    make = _maker(size)
    fit = (POOL_BYTES - POOL_HEADER) // size
    numbers = list(range(2 * fit))
    made: list[object] = []
    while len(made) * size < FILL_LIMIT_BYTES:
        batch: list[object] = [None] * len(numbers)
        for number in numbers:  # this loop allocates nothing but the objects, so those in a new pool follow each other
            batch[number] = make()
        made += batch
        if _longest_row([id(one) for one in batch], size) >= fit:
            return made
    return []


def _longest_row(addresses: list[int], size: int) -> int:
    """Return how many addresses follow each other at a distance of `size`, at most."""
    longest = row = 1
    for one, following in itertools.pairwise(addresses):
        row = row + 1 if following == one + size else 1
        longest = max(longest, row)
    return longest


def _maker(size: int) -> Callable[[], object]:
    """Return a function that allocates one new object of this size in bytes."""
    if size == STEP:
        return object
    if size < BYTES_HEADER:
        return itertools.count(1 << 40).__next__
    return lambda: bytes(size - BYTES_HEADER)


def _fill_heap(size: int) -> list[object]:
    """Allocate blocks of this size until the heap has to grow. Return them, or nothing if this C library does not grow its heap."""
    end = ctypes.CDLL(None).sbrk
    end.restype, end.argtypes = ctypes.c_void_p, (ctypes.c_ssize_t,)
    before = end(0)
    made: list[object] = []
    while end(0) == before:
        if len(made) * size > FILL_LIMIT_BYTES:
            return []
        made.append(bytes(size - BYTES_HEADER))
    return made
