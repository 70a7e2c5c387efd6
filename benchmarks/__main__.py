"""Run every benchmark with few repeats and write one file.

python -m benchmarks [--official PATH] [--device cuda] [--repeats 3] [--out benchmarks/results/bench.json]

Measures the compiled ops and the renderer against their PyTorch twins, whole FFHQ 512 images, a training step of the
miniature world and its parts, and the time from a prompt to a portrait. With --official, images and a small training
step are also compared with an official EG3D checkout; see benchmarks/official.py. This takes minutes.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.options import checkout, make_parser, parse

RESULT = Path(__file__).parent / "results" / "bench.json"
Row = dict[str, Any]


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--official", type=checkout, metavar="PATH")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parse(parser)
    from benchmarks import ops
    from benchmarks.measure import identity, write

    device, repeats, path = options.device, options.repeats, options.official
    precision = "float16" if device == "cuda" else "float32"
    parts: dict[str, Callable[[], Any]] = {
        "ops": lambda: ops.run(device, repeats),
        "images": lambda: run_images(path, device, repeats, precision),
        "training, mini": lambda: run_training("mini", None, device, 16, repeats),
        "efficiency, mini": lambda: run_efficiency(device, 3 * repeats),
    }
    if path is not None:
        parts["training, small"] = lambda: run_training("small", path, device, 4, 1)
    about, found = identity(device), {}
    start = time.perf_counter()
    for name, part in parts.items():
        print(f"\n{name}", flush=True)
        found[name] = part()
    whole = {"precision": precision, "repeats": repeats, "seconds": time.perf_counter() - start}
    print("\nwrote", write(options.out, about | whole | found))


def run_images(path: Path | None, device: str, repeats: int, precision: str) -> list[Row]:
    from benchmarks import images

    return images.run(path, device, [1], repeats, precision)


def run_training(size: str, path: Path | None, device: str, batch: int, repeats: int) -> Row:
    from benchmarks import steps

    result = steps.run(size, path, device, batch, repeats, "float32")
    steps.show(result)
    return result


def run_efficiency(device: str, repeats: int) -> list[Row]:
    """Measure the text-conditioned generator with untrained weights, which take the same time as trained ones."""
    from benchmarks import steps
    from benchmarks.measure import table
    from dreamportrait.systems.dreamportrait import efficiency
    from dreamportrait.text.loading import load_text_encoder

    config = steps.make_config(device, 1, "float32")
    portrait, _ = steps.make_networks("mini", config)
    encoder = load_text_encoder(config.text.clip, offline=True, device=device)
    ready = portrait.to(device).eval().requires_grad_(False)
    rows = [asdict(cost) for cost in efficiency.measure(ready, encoder, device, repeats)]
    print(table(rows))
    return rows


if __name__ == "__main__":
    main()
