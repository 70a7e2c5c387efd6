"""Compare the training step of stage 1 with the official EG3D's in images per second, and time its parts.

python -m benchmarks.training [--size mini|small|full] [--official PATH] [--device cuda] [--batch 4] [--repeats 3]

Our step is that of DreamPortraitModule in Lightning's trainer, with text as in stage 1, and without text as in plain
EG3D. The official step consists of the phases Gmain, Greg, Dmain and Dreg of the checkout at PATH, with the same
configuration, weights, intervals and batch. The steps are measured in turn. Neither loads pictures or encodes captions.

The regularisers are due every 4 and every 16 steps, so there are three kinds of steps. Each kind is measured. Images
per second are computed for a sequence of 16 steps. One difference is intended: the official loop generates new pictures
for the discriminator and new planes for the density regulariser, while ours reuses those of the generator step.
"""

from benchmarks.options import PRECISIONS, checkout, count, make_parser, parse

SIZES = ("mini", "small", "full")


def main() -> None:
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--official", type=checkout, metavar="PATH")
    parser.add_argument("--batch", type=count, default=4)
    parser.add_argument("--precision", choices=PRECISIONS, default=None)
    options = parse(parser)
    if options.official and options.size == "mini":
        parser.error("--official: the official code has no such planes as the miniature world's; choose small or full")
    from benchmarks import steps
    from benchmarks.measure import identity, save

    # The official code runs super-resolution and discriminator in float16 on a GPU and in float32 on a CPU.
    precision = options.precision or ("float16" if options.device == "cuda" else "float32")
    about = identity(options.device)
    result = steps.run(options.size, options.official, options.device, options.batch, options.repeats, precision)
    steps.show(result)
    print("\nwrote", save(f"training-{options.size}", options.device, about | result))


if __name__ == "__main__":
    main()
