"""Measures time and peak memory of a function call, and has the allocator setting that benchmarks use."""

import ctypes
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system at once.

    Getting them back page by page can take as long as the arithmetic. In a comparison, both sides benefit.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped on its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks


def seconds(run: Callable[[], object], device: str) -> float:
    """Return the wall-clock time of one call."""
    finish(device)
    start = time.perf_counter()
    run()
    finish(device)
    return time.perf_counter() - start


def finish(device: str) -> None:
    """Wait until the GPU has finished its queue."""
    if device == "cuda":
        torch.cuda.synchronize()


class PeakMemory:
    """Measures peak memory since `start`, minus the memory in use at `start`. On a CPU, memory is the resident set."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.before = 0

    def start(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        check_memory(self.device)
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator still holds would hide new allocations
        _CLEAR.write_text("5")  # resets the peak of the resident set
        self.before = _status("VmRSS")

    def megabytes(self) -> float:
        if self.device == "cuda":
            return (torch.cuda.max_memory_allocated() - self.before) / 2**20
        return (_status("VmHWM") - self.before) / 1024


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Return the peak memory of one call."""
    peak = PeakMemory(device)
    peak.start()
    run()
    return peak.megabytes()


def check_memory(device: str) -> None:
    """Raise OSError if peak memory cannot be measured."""
    if device != "cuda" and not (_CLEAR.exists() and platform.libc_ver()[0] == "glibc"):
        raise OSError(
            f"the memory of a CPU is read from Linux's {_CLEAR} and glibc, which {sys.platform} does not have; "
            "measure on Linux, or on a GPU"
        )


def _status(field: str) -> int:
    """Return a field of the kernel's process status, in kilobytes."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))
