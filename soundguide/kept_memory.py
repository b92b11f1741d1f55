"""Memory that the models free is theirs again at the next step, instead of the system's."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GiB of what it has freed, for its next requests; only with the GNU C library.

    Each tensor of a large picture would be new pages from the system otherwise, which it clears one by one: of 32 MiB,
    10 ms on a processor that writes them in 4.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def return_freed_memory() -> None:
    """Give all that is kept back to the system: between parts of the work that need memory of other sizes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
