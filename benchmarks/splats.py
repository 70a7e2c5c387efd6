"""Measure how like the model's pictures splats are, how long they take and how large their files are.

python -m benchmarks.splats [--model mini] [--portraits 4] [--cameras 16] [--device cuda] [--repeats 5]

Portraits have prompts and seeds that nothing was trained on or chosen by, and random cameras of the trained range. The
columns are those of dreamportrait/mini/splat_scores.py.

Writes benchmarks/results/splats-DEVICE.json.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.options import count, make_parser, parse

if TYPE_CHECKING:
    from dreamportrait.eg3d.planes import Planes


def main() -> None:
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--portraits", type=count, default=4)
    parser.add_argument("--cameras", type=count, default=16)
    options = parse(parser)
    from benchmarks.measure import identity, save, table
    from dreamportrait.mini.splat_scores import FIRST_SEED, KINDS, likeness, portraits, prompts
    from dreamportrait.pipeline import DreamPortraitPipeline

    about = identity(options.device)
    pipe = DreamPortraitPipeline.from_pretrained(options.model, device=options.device, offline=True)
    heads = portraits(pipe, options.portraits)
    times = durations(heads[0], options.repeats)
    print(table(times))
    rows = []
    for index, (prompt, head) in enumerate(zip(prompts(options.portraits), heads, strict=True)):
        rows.append({"prompt": prompt, **likeness(head, options.cameras, FIRST_SEED + index)})
        print(rows[-1], flush=True)
    means = {name: statistics.mean(row[name] for row in rows) for name in KINDS}
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


if __name__ == "__main__":
    main()
