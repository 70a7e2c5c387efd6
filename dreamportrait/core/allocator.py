"""Settings of the memory allocator. Programs apply them; a library leaves them to the program that imports it."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system at once.

    Getting them back page by page can take as long as the arithmetic. A process then keeps the most memory that it ever
    needed. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)  # no block is mapped on its own
        mallopt(_M_TRIM_THRESHOLD, -1)  # the heap never shrinks
