"""Timing and memory, side by side: this machine is never quiet, so only ratios of one run mean anything."""

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def keep_freed_memory() -> None:
    """Tells glibc to reuse large blocks instead of handing them back to the system at once.

    Fetching them anew, page by page, otherwise takes as long as the arithmetic. Both sides of a comparison profit.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped on its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks


def seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def side_by_side(
    reference: Callable[[], object], compiled: Callable[[], object], repeats: int, device: str, warm_ups: int = 3
) -> Row:
    """Medians of alternating runs; the ratio is the median of each pair's.

    Warm-up loads libraries and makes the system hand out memory: pages never used before can take longer than the op.
    """
    for run in (reference, compiled) * warm_ups:
        seconds(run, device)
    pairs = [(seconds(reference, device), seconds(compiled, device)) for _ in range(repeats)]
    return {
        "ms_reference": 1000 * statistics.median(a for a, _ in pairs),
        "ms_compiled": 1000 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def peak_megabytes(run: Callable[[], object], device: str) -> float:
    """Most memory `run` holds beyond what was there before; on the CPU, of the resident set."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # freed memory the allocator still holds would hide what `run` takes
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of the resident set
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """Kilobytes, from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def machine(device: str) -> Row:
    info: Row = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    if device == "cuda":
        return info | {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return info | {"name": names[0] if names else "", "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}


def table(rows: list[Row]) -> str:
    """Rows with the same keys as aligned columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_cell(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(name: str, device: str, results: dict[str, Any]) -> Path:
    """benchmarks/results/<name>-<device>.json"""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{device}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"machine": machine(device), **results}, indent=1) + "\n")
    os.replace(temporary, path)
    return path
