"""Command-line options of the benchmarks. Imports no PyTorch, so that --help appears at once."""

import argparse
import importlib.util
from argparse import ArgumentTypeError
from pathlib import Path

from dreamportrait.core.allocator import keep_freed_memory

PRECISIONS = ("float32", "float16", "bfloat16")


def make_parser(doc: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=count, default=repeats)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; refuse a device that is not there. Then set allocator and arithmetic, as programs do."""
    options = parser.parse_args()
    keep_freed_memory()
    if options.device == "cuda":
        import torch

        from dreamportrait.core.precision import exact_float32

        if not torch.cuda.is_available():
            parser.error("--device cuda: PyTorch sees no GPU here; choose cpu")
        exact_float32()
    return options


def count(text: str) -> int:
    """Parse an argument that must be a positive integer."""
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number}: must be at least 1")
    return number


def checkout(text: str) -> Path:
    """Parse the argument --official."""
    path = Path(text)
    if not (path / "eg3d" / "training" / "triplane.py").exists():
        raise ArgumentTypeError(f"{text}: no eg3d/training/triplane.py there; give a checkout of NVlabs/eg3d")
    if lost := [name for name in ("scipy", "requests") if importlib.util.find_spec(name) is None]:
        raise ArgumentTypeError(f"the official code also imports {' and '.join(lost)}; pip install {' '.join(lost)}")
    return path
