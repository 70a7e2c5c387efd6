"""Time and memory of a piece of work, and the machine it runs on."""

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_freed_memory() -> None:
    """Tells glibc to reuse large blocks instead of handing them back to the system at once.

    Fetching them anew, page by page, otherwise takes as long as the arithmetic. Both sides of a comparison profit.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped on its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks


def seconds(run: Callable[[], object], device: str) -> float:
    finish(device)
    start = time.perf_counter()
    run()
    finish(device)
    return time.perf_counter() - start


def finish(device: str) -> None:
    """Waits for what the GPU was told to do."""
    if device == "cuda":
        torch.cuda.synchronize()


class PeakMemory:
    """The most memory held beyond what was there at the start; on the CPU, of the resident set."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.before = 0

    def start(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        check_memory(self.device)
        ctypes.CDLL(None).malloc_trim(0)  # freed memory the allocator still holds would hide what is taken
        _CLEAR.write_text("5")  # resets the peak of the resident set
        self.before = _status("VmRSS")

    def megabytes(self) -> float:
        if self.device == "cuda":
            return (torch.cuda.max_memory_allocated() - self.before) / 2**20
        return (_status("VmHWM") - self.before) / 1024


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    peak = PeakMemory(device)
    peak.start()
    run()
    return peak.megabytes()


def check_memory(device: str) -> None:
    """That memory can be measured here."""
    if device != "cuda" and not (_CLEAR.exists() and platform.libc_ver()[0] == "glibc"):
        raise OSError(
            f"the memory of a CPU is read from Linux's {_CLEAR} and glibc, which {sys.platform} has not; measure on "
            "Linux, or on a GPU"
        )


def _status(field: str) -> int:
    """Kilobytes, from the kernel."""
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def machine(device: str) -> dict[str, Any]:
    info: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    if device == "cuda":
        return info | {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line]
    name = names[0] if names else platform.processor()
    return info | {"name": name, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
