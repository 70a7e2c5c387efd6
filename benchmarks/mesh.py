"""Measure how long a portrait takes to become a mesh, and the parts of that time.

python -m benchmarks.mesh [--model mini] [--device cuda] [--repeats 5]

Measures each step of `dreamportrait.export.mesh.extract`, and writing the files, for one prompt whose planes are made
before. Writes benchmarks/results/mesh-DEVICE.json.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.options import make_parser, parse

PROMPT = "a woman with red hair"
STEPS = ("look_at_head", "make_solid", "surface", "vertex_normals", "vertex_colors", "unwrap", "bake")


def main() -> None:
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--model", default="mini")
    options = parse(parser)
    from benchmarks.measure import identity, save, table
    from dreamportrait.pipeline import DreamPortraitPipeline

    about = identity(options.device)
    pipe = DreamPortraitPipeline.from_pretrained(options.model, device=options.device, offline=True)
    head = pipe(PROMPT, seed=0).head
    rows = run(head, options.repeats)
    print(table(rows))
    print("\nwrote", save("mesh", options.device, about | {"model": options.model, "prompt": PROMPT, "rows": rows}))


def run(head: Any, repeats: int) -> list[dict[str, Any]]:
    """Return seconds of each step: the median, the fastest and the slowest of the repeats."""
    from dreamportrait.export import mesh as meshes

    seconds: dict[str, list[float]] = defaultdict(list)
    meshes.extract(head)  # the first run loads libraries
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            stack.enter_context(mock.patch.object(meshes, name, _timed(seconds[name], getattr(meshes, name))))
        for index in range(repeats):
            made = _timed(seconds["extract, in all"], meshes.extract)(head)
            for suffix in ("glb", "ply", "obj"):
                _timed(seconds[f"save .{suffix}"], made.save)(Path(folder) / f"{index}.{suffix}")
    return [
        {"step": name, "median": statistics.median(each), "fastest": min(each), "slowest": max(each)}
        for name, each in seconds.items()
    ]


def _timed(seconds: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a clock around it. Every step ends on the CPU, so there is no device to wait for."""

    def run(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        seconds.append(time.perf_counter() - start)
        return result

    return run


if __name__ == "__main__":
    main()
