"""Timing and memory, side by side: this machine is never quiet, so only ratios of one run mean anything."""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dreamportrait import __version__
from dreamportrait.core.machine import git_state, machine
from dreamportrait.core.timing import seconds

Row = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


def make_parser(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    """With what every benchmark is asked."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=count, default=repeats)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here; choose cpu")
    return options


def count(text: str) -> int:
    """Of something that there must be."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: must be at least 1")
    return number


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


def table(rows: list[Row]) -> str:
    """Rows with the same keys as aligned columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [keys, *([_cell(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(keys))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def code() -> Row:
    """Which version was measured."""
    git = git_state()
    return {"version": __version__, "commit": git.get("commit"), "uncommitted_changes": bool(git.get("changed"))}


def save(name: str, device: str, results: dict[str, Any]) -> Path:
    """benchmarks/results/<name>-<device>.json"""
    return write(RESULTS / f"{name}-{device}.json", results)


def identity(device: str) -> dict[str, Any]:
    """Of every measurement; to be taken before it, as code may change meanwhile."""
    return {"machine": machine(device), "code": code()}


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path
