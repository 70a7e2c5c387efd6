"""Measure how long a portrait takes to become a mesh, the parts of that time, and how well silhouettes agree.

python -m benchmarks.mesh [--model mini] [--device cuda] [--repeats 5] [--heads 32]

Measures each step of `dreamportrait.export.mesh.extract`, and writing the files, for one prompt whose planes are made
before. Silhouettes are those of the meshes and of the opacity of as many heads, from twelve cameras of the trained
range that are none of those that meshes are made from. Writes benchmarks/results/mesh-DEVICE.json.
"""

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.options import count, make_parser, parse

PROMPT = "a woman with red hair"
FIRST_SEED = 5000  # beyond those that people try first
VIEWS = (([-27, -15, -5, 8, 18, 27], 0), ([-20, 0, 20], 10), ([-20, 0, 20], -10))  # yaws and pitch in degrees
STEPS = ("look_at_head", "make_solid", "surface", "vertex_normals", "vertex_colors", "unwrap", "bake")


def main() -> None:
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--heads", type=count, default=32, help="whose silhouettes are compared")
    options = parse(parser)
    from benchmarks.measure import identity, save, table
    from dreamportrait.pipeline import DreamPortraitPipeline

    about = identity(options.device)
    pipe = DreamPortraitPipeline.from_pretrained(options.model, device=options.device, offline=True)
    head = pipe(PROMPT, seed=0).head
    rows = run(head, options.repeats)
    print(table(rows))
    compared = silhouettes(pipe, options.heads)
    print("\nsilhouettes:", compared)
    found = {"model": options.model, "prompt": PROMPT, "rows": rows, "silhouettes": compared}
    print("\nwrote", save("mesh", options.device, about | found))


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


def silhouettes(pipe: Any, heads: int) -> dict[str, float]:
    """Return the IoU of the silhouettes of meshes and of the opacity of heads: mean, worst, and share from 0.95."""
    from dreamportrait.mini.own_prompts import PROMPTS

    prompts = itertools.cycle(PROMPTS)
    found = [iou for index in range(heads) for iou in agreement(pipe(next(prompts), FIRST_SEED + index).head)]
    share = sum(iou >= 0.95 for iou in found) / len(found)
    return {"views": len(found), "mean": statistics.mean(found), "worst": min(found), "share from 0.95": share}


def agreement(head: Any) -> list[float]:
    """Return the IoU of each view of one head."""
    import numpy as np
    import torch

    from dreamportrait.export.mesh import METRES, extract
    from dreamportrait.export.mesh_views import HALF, look_at_head, mesh_cameras, opacity_of_head
    from dreamportrait.geometry.raster import seen_from

    config, mesh, found = head.generator.config, extract(head, texture=False), []
    cameras = torch.cat([config.around(yaws, pitch) for yaws, pitch in VIEWS])
    opacity, _ = opacity_of_head(head, cameras, look_at_head(head, mesh_cameras(config)).space)
    for camera, expected in zip(cameras, (opacity > HALF).numpy(), strict=True):
        mask = seen_from(mesh.positions / np.float32(METRES), mesh.faces, camera, expected.shape[-1]).mask
        found.append(float((mask & expected).sum() / (mask | expected).sum()))
    return found


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
