"""Compare every compiled op with its PyTorch twin; print a table and write benchmarks/results/ops-<device>.json.

python -m benchmarks.ops [--device cuda] [--repeats 5]
"""

import logging
from typing import Any

from benchmarks.options import make_parser, parse


def main() -> None:
    options = parse(make_parser(__doc__, repeats=5))
    from benchmarks.measure import identity, save

    logging.basicConfig(level=logging.INFO)
    about = identity(options.device)
    print("\nwrote", save("ops", options.device, about | run(options.device, options.repeats)))


def run(device: str, repeats: int) -> dict[str, Any]:
    """Measure the renderer, the other ops and those of inference, and print three tables."""
    from benchmarks import layers, pointwise, renderer, triangles
    from benchmarks.measure import table
    from eg3d_ops import cpu_isa, loaded_libraries

    render_rows = renderer.run(device, repeats)
    op_rows = pointwise.run(device, repeats) + triangles.run(device, repeats)
    layer_rows = layers.run(device, repeats)
    print(table(render_rows), table(op_rows), table(layer_rows), sep="\n\n")
    kernels = cpu_isa() if device == "cpu" else loaded_libraries()["cuda"].name
    return {"kernels": kernels, "rows": render_rows + op_rows + layer_rows}


if __name__ == "__main__":
    main()
