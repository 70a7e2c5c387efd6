"""The command `evaluate`, which measures a generator, or pictures that another system made."""

from pathlib import Path
from typing import Any

import click

from dreamportrait.cli.naming import slug
from dreamportrait.cli.options import SEEDS
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_free
from dreamportrait.data.names import KNOWN, check_source
from dreamportrait.metrics import report
from dreamportrait.systems.dreamportrait.names import check_checkpoint


@click.command()
@click.option("--checkpoint", help="mini, a portrait's folder, a run's folder or a checkpoint in it.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="In place of --checkpoint: a folder of pictures 0.png, 1.png, ..., named after the numbers of their captions.",
)
@click.option("--dataset", required=True, help=f"A folder, a zip file, or one of {KNOWN}.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder to write scores.json and scores.md to. Default: one here, named after what is measured.",
)
@click.option(
    "--captions",
    type=click.Path(path_type=Path),
    help="A JSON list of texts that replaces the captions of the first pictures.",
)
@click.option(
    "--num-images",
    "count",
    type=click.IntRange(min=2),
    help="Samples. Default: as many as the data set has pictures, at most 2000; with --images, all of them.",
)
@click.option(
    "--num-candidates", type=click.IntRange(min=2), help="Captions that R-Precision chooses from. Default: 100."
)
@click.option(
    "--region", type=click.Choice(["all", "face"]), help="Judge the whole picture or its middle. Default: all."
)
@click.option("--extractor", help="inception[:FILE], mini-clip or clip:SOURCE. Only inception gives a FID.")
@click.option("--clip", help="The judge: mini/clip-b, MODEL:PRETRAINED of open_clip, or a folder.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the layers that tolerate less than float32.",
)
@click.option(
    "--truncation", type=click.FloatRange(0, 1), help="Smaller values are closer to the average face. Default: 1."
)
@click.option("--seed", type=SEEDS, help="Seed of identities and candidates. Default: 0.")
@click.option("--batch", type=click.IntRange(min=1), help="Batch size of each process. Default: 16.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it holds a report.")
@click.option("--json", "as_json", is_flag=True, help="Print scores.json in place of a table.")
def evaluate(
    checkpoint: str | None,
    images: Path | None,
    dataset: str,
    out: Path | None,
    count: int | None,
    captions: Path | None,
    extractor: str | None,
    clip: str | None,
    precision: str,
    device: str | None,
    offline: bool,
    overwrite: bool,
    as_json: bool,
    **protocol: Any,
) -> None:
    """Measure a generator: FID, sharpness, MSC, R-Precision, what is said and shown, diversity, agreement of views.

    With --images, measure pictures of another system by the scores that need only pictures.

    The command also works under torchrun. The number of processes does not change the scores.

    \b
    Examples:
        dreamportrait evaluate --checkpoint mini --dataset miniworld:validation --num-images 200
        dreamportrait evaluate --images pictures --dataset data/celebatext_hq --extractor inception --out scores
    """
    with one_message():
        if (checkpoint is None) == (images is None):
            raise click.UsageError("name what to measure: either --checkpoint or --images, and not both")
        out = out or Path(f"scores-{slug(str(checkpoint or images)) or 'here'}")
        check_free(out, overwrite, report.FILES)  # before anything heavy is imported
        if checkpoint is not None:
            check_checkpoint(checkpoint)
        check_source(dataset)
        from dreamportrait.core.launch import is_first_process
        from dreamportrait.core.machine import find_device
        from dreamportrait.metrics import evaluation
        from dreamportrait.systems.dreamportrait.subject import load_subject

        request = evaluation.Request(
            checkpoint=checkpoint,
            images=images,
            dataset=dataset,
            out=out,
            count=count,
            captions=captions,
            extractor=extractor,
            clip=clip,
            precision=precision,
            protocol={name: value for name, value in protocol.items() if value is not None},
            gpu=find_device(device) == "cuda",
            offline=offline,
            overwrite=overwrite,
        )
        text = evaluation.run(request, load_subject)
        if is_first_process():
            click.echo((out / report.JSON).read_text(encoding="utf-8") if as_json else f"{text}\nwrote {out}")
