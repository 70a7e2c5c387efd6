"""Measures time and peak memory of a function call."""

import ctypes
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

_MEASURED_SECONDS = 0.02  # one measurement of short kernels takes about this long
_MOST_CALLS = 200  # the queue of a GPU holds about a thousand launches
_CYCLES_PER_SECOND = 2e9  # at least the clock rate of a GPU
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(run: Callable[[], object], device: str) -> float:
    """Return the wall-clock time of one call: what somebody waits for. It includes launching the kernels."""
    finish(device)
    start = time.perf_counter()
    run()
    finish(device)
    return time.perf_counter() - start


def kernel_seconds(run: Callable[[], object], device: str) -> float:
    """Return the time that the device itself needs for one call. On a CPU, this is `seconds`.

    A kernel of microseconds takes less time than its launch, so the wall clock would measure launches. Here the GPU
    first waits while many calls are put into its queue; then it does them one after another, between two events.
    """
    wall = seconds(run, device)
    if device != "cuda" or wall > _MEASURED_SECONDS:  # then launches hardly count
        return wall
    calls = min(_MOST_CALLS, math.ceil(_MEASURED_SECONDS / wall))
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(int(calls * wall * _CYCLES_PER_SECOND))  # as long as it takes to launch them
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / calls


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
