"""Compare our generator with an official EG3D checkout, with the same weights and inputs, in one run.

python -m benchmarks.generator --official PATH [--device cuda] [--batches 1 8] [--repeats 3]

PATH is a checkout of NVlabs/eg3d, see benchmarks/official.py; without it only our generator is measured. Both have the
full FFHQ 512 configuration and random weights. Measures seconds per new image, seconds per new view of a portrait whose
planes are kept, peak memory, and the largest difference between the two images.
"""

from benchmarks.options import PRECISIONS, checkout, count, make_parser, parse


def main() -> None:
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--official", type=checkout, metavar="PATH")
    parser.add_argument("--batches", type=count, nargs="+", default=[1, 8])
    parser.add_argument("--precision", choices=PRECISIONS, default=None)
    options = parse(parser)
    from benchmarks import images
    from benchmarks.measure import identity, save, table

    # The official code runs super-resolution in float16 on a GPU and in float32 on a CPU.
    precision = options.precision or ("float16" if options.device == "cuda" else "float32")
    about = identity(options.device)
    rows = images.run(options.official, options.device, options.batches, options.repeats, precision)
    print(table(rows))
    print("\nwrote", save("generator", options.device, about | {"precision": precision, "rows": rows}))


if __name__ == "__main__":
    main()
