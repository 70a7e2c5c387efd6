"""Measure how like the model's pictures splats are, how long they take and how large their files are.

python -m benchmarks.splats [--model mini] [--portraits 4] [--cameras 16] [--device cuda] [--repeats 5]

Portraits have prompts and seeds that nothing was trained on or chosen by, and random cameras of the trained range. PSNR
compares with the model's own pictures, background included, over all pixels and cameras of a portrait:

    rule       splats without the trained network, drawn at the size of the pictures
    corrected  the same with the network
    viewers    corrected, written to .spz and read back, drawn at four times the size with the blur that viewers add,
               and averaged down

Writes benchmarks/results/splats-DEVICE.json.
"""

import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.options import count, make_parser, parse

if TYPE_CHECKING:
    from torch import Tensor

    from dreamportrait.eg3d.planes import Planes
    from dreamportrait.export.splats import Splats

FIRST_SEED = 5000  # below the seeds of training portraits, beyond those that people try first
FINER = 4


def main() -> None:
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--portraits", type=count, default=4)
    parser.add_argument("--cameras", type=count, default=16)
    options = parse(parser)
    from benchmarks.measure import identity, save, table
    from dreamportrait.mini.own_prompts import PROMPTS
    from dreamportrait.pipeline import DreamPortraitPipeline

    about = identity(options.device)
    pipe = DreamPortraitPipeline.from_pretrained(options.model, device=options.device, offline=True)
    prompts = list(PROMPTS)[:: max(len(PROMPTS) // options.portraits, 1)][: options.portraits]
    heads = [pipe(prompt, FIRST_SEED + index).head for index, prompt in enumerate(prompts)]
    times = durations(heads[0], options.repeats)
    print(table(times))
    rows = []
    for index, (prompt, head) in enumerate(zip(prompts, heads, strict=True)):
        rows.append({"prompt": prompt, **likeness(head, options.cameras, FIRST_SEED + index)})
        print(rows[-1], flush=True)
    means = {name: statistics.mean(row[name] for row in rows) for name in ("rule", "corrected", "viewers")}
    print(table(rows), "\n\nmeans", {name: round(value, 2) for name, value in means.items()})
    found = {"model": options.model, "cameras": options.cameras, "times": times, "rows": rows, "means": means}
    print("\nwrote", save("splats", options.device, about | found))


def durations(head: "Planes", repeats: int) -> list[dict[str, Any]]:
    """Return seconds of making and saving splats, and the bytes of the files. A first run loads libraries."""
    from dreamportrait.export.splats import make_splats

    rows = []
    splats = make_splats(head)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"head{suffix}" for suffix in (".ply", ".spz")]
        steps: dict[str, Callable[[], object]] = {"make_splats": lambda: make_splats(head)}
        steps |= {f"save {path.suffix}": functools.partial(splats.save, path, True) for path in paths}
        for name, step in steps.items():
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
            row = {"step": name, "median": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds)}
            written = Path(folder) / f"head{name.removeprefix('save ')}"
            rows.append(row | ({"bytes": written.stat().st_size} if written.exists() else {}))
    return rows


def likeness(head: "Planes", cameras: int, seed: int) -> dict[str, Any]:
    """Return PSNRs of one head, by kind, and the worst PSNR of a single camera in viewers."""
    from dreamportrait.export.splats import Splats, make_splats
    from dreamportrait.mini.splats import random_cameras

    labels = random_cameras(head.generator, cameras, seed)
    wanted = ((head.views(labels)[0].colors.float().cpu() + 1) / 2).clamp(0, 1)  # [V, 3, R, R]
    corrected = make_splats(head)
    with tempfile.TemporaryDirectory() as folder:
        corrected.save(path := Path(folder) / "head.spz")
        packed = Splats.load(path)
    errors = {
        "rule": _errors(make_splats(head, corrections=False), labels, wanted, 1),
        "corrected": _errors(corrected, labels, wanted, 1),
        "viewers": _errors(packed, labels, wanted, FINER),
    }
    found: dict[str, Any] = {name: _decibels(statistics.mean(values)) for name, values in errors.items()}
    return {"splats": len(corrected), **found, "worst_camera": _decibels(max(errors["viewers"]))}


def _errors(splats: "Splats", labels: "Tensor", wanted: "Tensor", finer: int) -> list[float]:
    """Return the mean squared error of each camera."""
    drawn = _pictures(splats, labels, finer, wanted.shape[-1])
    return [float((a - b).square().mean()) for a, b in zip(drawn, wanted, strict=True)]


def _pictures(splats: "Splats", labels: "Tensor", finer: int, size: int) -> "Iterator[Tensor]":
    import torch.nn.functional as F

    from dreamportrait.geometry.splat_raster import VIEWERS_BLUR

    blur = VIEWERS_BLUR if finer > 1 else 0.0
    for drawn in splats.draw(labels, finer * size, blur):
        yield F.avg_pool2d(drawn.colors.clamp(0, 1), finer)


def _decibels(error: float) -> float:
    return -10 * math.log10(max(error, 1e-10))


if __name__ == "__main__":
    main()
