"""Measure what each part of the inference path saves of a whole image, with all variants in turns in one process.

python -m benchmarks.inference [--official PATH] [--sizes full mini] [--device cuda] [--repeats 5]

Sizes: the full FFHQ 512 configuration with random weights, and the shipped generator of the miniature world. A new
image goes from z to pixels; a new view of a portrait keeps its planes. benchmarks/variants.py describes the variants.
PATH is a checkout of NVlabs/eg3d, see benchmarks/official.py; the official code has no generator of the smaller size.
"""

from benchmarks.options import checkout, make_parser, parse

SIZES = ("full", "mini")


def main() -> None:
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--official", type=checkout, metavar="PATH")
    parser.add_argument("--sizes", choices=SIZES, nargs="+", default=list(SIZES))
    options = parse(parser)
    from benchmarks import variants
    from benchmarks.measure import identity, save
    from eg3d_ops import cpu_isa

    device, repeats = options.device, options.repeats
    about = identity(device) | ({"kernels": cpu_isa()} if device == "cpu" else {})
    rows = [row for size in options.sizes for row in variants.run(size, options.official, device, repeats)]
    print("\nwrote", save("inference", device, about | {"repeats": repeats, "rows": rows}))


if __name__ == "__main__":
    main()
