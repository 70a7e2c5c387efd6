"""Every compiled op against its PyTorch twin, in one run: prints a table, writes benchmarks/results/ops-<device>.json.

python -m benchmarks.ops [--device cuda] [--repeats 7]
"""

import argparse
import logging

from benchmarks import pointwise, renderer
from benchmarks.measure import keep_freed_memory, save, table
from eg3d_ops import cpu_isa, loaded_libraries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    keep_freed_memory()

    render_rows = renderer.run(options.device, options.repeats)
    op_rows = pointwise.run(options.device, options.repeats)
    print(table(render_rows), table(op_rows), sep="\n\n")
    kernels = cpu_isa() if options.device == "cpu" else loaded_libraries()["cuda"].name
    print("\nwrote", save("ops", options.device, {"kernels": kernels, "rows": render_rows + op_rows}))


if __name__ == "__main__":
    main()
