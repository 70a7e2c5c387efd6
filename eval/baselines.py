"""Make heads by the methods that the paper compares with, and measure time, memory and quality beside the one pass.

\b
    python eval/baselines.py --dataset miniworld:validation --prompts 4 --seeds 1 --set sds.steps=200   # to choose
    python eval/baselines.py --dataset miniworld:test --prompts 12 --seeds 3                             # to report
    python eval/baselines.py --methods one-pass,lifting --config configs/baselines/mini.yaml --out runs/lifted

Writes OUT/results.json, OUT/baselines.md and OUT/sheet.png. If the command was stopped, the same command continues.
docs/baselines.md explains the methods.
"""

import json
import signal
import sys
from pathlib import Path

import click

from dreamportrait.core.errors import one_message

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/baselines/mini.yaml"
SHOWN = 6  # rows of the sheet


@click.command(help=__doc__)
@click.option("--config", type=click.Path(path_type=Path), help=f"Models and settings.  [default: {CONFIG}]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting: sds.steps=200.")
@click.option("--dataset", default="miniworld:validation", show_default=True, help="As for `dreamportrait evaluate`.")
@click.option("--prompts", type=click.IntRange(min=2), default=12, show_default=True, help="Evaluation captions.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--methods", metavar="NAME,NAME", help="Only these.  [default: all]")
@click.option("--clip", help="The judge.  [default: as for `dreamportrait evaluate`]")
@click.option("--extractor", help="Of the distance.  [default: as for `dreamportrait evaluate`]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--render", is_flag=True, help="Only measure and draw the heads that are there.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/baselines"))
def main(
    config: Path | None,
    overrides: tuple[str, ...],
    dataset: str,
    prompts: int,
    seeds: int,
    methods: str | None,
    clip: str | None,
    extractor: str | None,
    device: str | None,
    offline: bool,
    render: bool,
    out: Path,
) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with one_message():
        from dreamportrait.baselines.names import choose

        chosen = choose(methods)
        import torch

        from dreamportrait.baselines import study as studies
        from dreamportrait.baselines.config import Baselines
        from dreamportrait.baselines.page import render as as_page
        from dreamportrait.baselines.scores import Yardstick
        from dreamportrait.baselines.tools import load_tools
        from dreamportrait.core.files import write_text
        from dreamportrait.core.machine import find_device
        from dreamportrait.core.settings import load
        from dreamportrait.core.timing import check_memory
        from dreamportrait.data.sources import open_pictures
        from dreamportrait.export.sheets import save_picture
        from dreamportrait.metrics.extractors import default_extractor, default_judge, load_extractor, load_judge
        from dreamportrait.metrics.world_oracle import make_oracle

        place = torch.device(find_device(device))
        check_memory(place.type)
        settings = load(Baselines, config or ROOT / CONFIG, overrides)
        if settings.clip == (clip := clip or default_judge(dataset)):
            raise ValueError(f"clip {clip} guides and judges; the judge must be another one: name one with --clip")
        pictures = open_pictures(dataset)
        study = studies.Study(out, settings, dataset, chosen, prompts, seeds)
        studies.check(study, pictures)
        tools = load_tools(settings, pictures.cameras, place, offline)
        if pictures.resolution != (size := tools.pipe.generator.config.image_resolution):
            raise ValueError(f"{dataset} has pictures of {pictures.resolution} pixels, {settings.model} of {size}")
        judge = load_judge(clip, offline, place)
        features = load_extractor(extractor or default_extractor(dataset), judge, offline, place)
        if not render:
            studies.run(study, pictures, tools, click.echo)
        oracle = make_oracle(pictures, place)
        yard = Yardstick(pictures, judge, features, oracle, tools.pipe.generator.config, prompts)
        content = studies.results(study, yard, tools)
        write_text(out / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        write_text(out / "baselines.md", as_page(content))
        save_picture(studies.sheet(study, pictures, SHOWN), out / "sheet.png", overwrite=True)
    click.echo(f"wrote {out / 'results.json'}, {out / 'baselines.md'} and {out / 'sheet.png'}")


if __name__ == "__main__":
    main()
