"""Timing and memory, side by side. Other load on a machine changes times, so compare only ratios within one run."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dreamportrait import __version__
from dreamportrait.core.files import write_text
from dreamportrait.core.machine import git_state, machine
from dreamportrait.core.timing import seconds

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def side_by_side(
    reference: Callable[[], object],
    compiled: Callable[[], object],
    repeats: int,
    device: str,
    warm_ups: int = 3,
    clock: Callable[[Callable[[], object], str], float] = seconds,
) -> Row:
    """Return median times of alternating runs, and the median of the ratios of the pairs.

    `clock` is kernel_seconds for single ops, whose launches would otherwise be measured on a GPU.

    Warm-up runs load libraries and allocate memory: the first use of a memory page can take longer than the op.
    """
    for run in (reference, compiled) * warm_ups:
        seconds(run, device)
    pairs = [(clock(reference, device), clock(compiled, device)) for _ in range(repeats)]
    return {
        "ms_reference": 1000 * statistics.median(a for a, _ in pairs),
        "ms_compiled": 1000 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def table(rows: list[Row]) -> str:
    """Return the rows as text with aligned columns, one column per key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_cell(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def code() -> Row:
    """Return version and commit of the measured code."""
    git = git_state()
    return {"version": __version__, "commit": git.get("commit"), "uncommitted_changes": bool(git.get("changed"))}


def save(name: str, device: str, results: dict[str, Any]) -> Path:
    """Write benchmarks/results/<name>-<device>.json and return its path."""
    return write(RESULTS / f"{name}-{device}.json", results)


def identity(device: str) -> dict[str, Any]:
    """Return machine and code version of a measurement. Call it first, as files may change during the run."""
    return {"machine": machine(device), "code": code()}


def write(path: Path, content: dict[str, Any]) -> Path:
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path
