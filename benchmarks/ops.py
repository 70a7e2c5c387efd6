"""Every compiled op against its PyTorch twin, in one run: prints a table, writes benchmarks/results/ops-<device>.json.

python -m benchmarks.ops [--device cuda] [--repeats 7]
"""

import logging

from benchmarks import pointwise, renderer
from benchmarks.measure import Row, identity, make_parser, parse, save, table
from dreamportrait.core.timing import keep_freed_memory
from eg3d_ops import cpu_isa, loaded_libraries


def main() -> None:
    options = parse(make_parser(__doc__, repeats=5))
    logging.basicConfig(level=logging.INFO)
    keep_freed_memory()

    about = identity(options.device)
    print("\nwrote", save("ops", options.device, about | run(options.device, options.repeats)))


def run(device: str, repeats: int) -> Row:
    render_rows = renderer.run(device, repeats)
    op_rows = pointwise.run(device, repeats)
    print(table(render_rows), table(op_rows), sep="\n\n")
    kernels = cpu_isa() if device == "cpu" else loaded_libraries()["cuda"].name
    return {"kernels": kernels, "rows": render_rows + op_rows}


if __name__ == "__main__":
    main()
