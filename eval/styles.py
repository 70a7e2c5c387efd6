"""Make and measure the rows of the free-style paper's tables 1 and 2 and figure 8, and print them with verdicts.

\b
    python eval/styles.py --styles "gold statue,elf" --faces 1 --seeds 1 --views 20 --out runs/short     # to try
    python eval/styles.py --faces 3 --seeds 3 --page docs/styles.md                                      # to report
    python eval/styles.py --render

All rows style the same generated faces of the miniature world. The judges trained nothing. What lacks its model is left
out: DreamFusion needs --diffusion and the CLIP score --clip, which are not shipped (`make mini-styles` trains
diffusion-styles and clip-t), and the row "w_s a vector" needs --vector, a network that was pretrained with
model.code_size=1. If the command was stopped, the same command continues.
"""

import json
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dreamportrait.core.errors import one_message
from dreamportrait.core.files import write_text
from dreamportrait.systems.freestyle.study_rows import choose

if TYPE_CHECKING:
    from dreamportrait.systems.freestyle.study import Study, Tools

ROOT = Path(__file__).resolve().parents[1]
RATE = 0.005  # of tuning all weights, falling as a cosine; chosen for the miniature network, the paper has 0.002
EXACT = 20  # faces in each style that stand for perfect pictures


@click.command(help=__doc__)
@click.option("--model", default="mini", show_default=True, help="As for `dreamportrait style`.")
@click.option("--rows", metavar="NAME,NAME", help="Only these rows.  [default: all]")
@click.option("--styles", metavar="NAME,NAME", help="Styles of the miniature world.  [default: all that are near]")
@click.option("--faces", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each style and seed.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--views", type=click.IntRange(1, 100), default=100, show_default=True, help="Edited views of a face.")
@click.option("--tune-steps", type=click.IntRange(min=1), help="Steps of tuning.  [default: the model's]")
@click.option("--steps", type=click.FloatRange(0.001, 10), default=1.0, help="Factor of the stand-ins' steps.")
@click.option(
    "--diffusion", default="none", show_default=True, help="Of DreamFusion: a model's name or folder; or none."
)
@click.option("--vector", type=click.Path(path_type=Path), help="A model with code_size=1, for its row of table 2.")
@click.option("--oracle", default="mini/style-oracle", show_default=True, help="Judge of styles; or none.")
@click.option("--clip", default="none", show_default=True, help="Judge of texts: a name or folder; or none.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("--render", is_flag=True, help="Only print what was measured.")
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Also write the tables into this page.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/styles"), show_default=True)
def main(rows: str | None, render: bool, page: Path | None, out: Path, **given: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with one_message():
        chosen, asked = choose(rows), Asked(**given)
        if page is not None and not page.is_file():
            raise FileNotFoundError(f"--page {page} is not there; name a page with the marks of docs/styles.md")
        if not render:
            from dreamportrait.systems.freestyle.study import run

            tools, study = load(asked, chosen, out)
            run(study, tools, click.echo)
            keep_distances(study, tools)
        text = rendered(out)
        write_text(out / "styles.md", text)
        if page is not None:
            from dreamportrait.systems.freestyle.study_page import replaced

            write_text(page, replaced(page.read_text(encoding="utf-8"), text))
    click.echo(text)


@dataclass(frozen=True)
class Asked:
    """The options that say what is measured, and with which models."""

    model: str
    styles: str | None
    faces: int
    seeds: int
    views: int
    tune_steps: int | None
    steps: float
    diffusion: str
    vector: Path | None
    oracle: str
    clip: str
    device: str | None
    offline: bool


def load(asked: Asked, rows: tuple[str, ...], out: Path) -> "tuple[Tools, Study]":
    """Load the models, and plan the study."""
    from dreamportrait.core.machine import find_device
    from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
    from dreamportrait.miniworld.styles import STYLES, style
    from dreamportrait.systems.freestyle.folder import load_network_of
    from dreamportrait.systems.freestyle.generator import PictureTo3D
    from dreamportrait.systems.freestyle.judges import load_judges
    from dreamportrait.systems.freestyle.learning import of_all_weights
    from dreamportrait.systems.freestyle.names import locate_model
    from dreamportrait.systems.freestyle.perceptual import make_perceptual
    from dreamportrait.systems.freestyle.pipeline import StylePipeline
    from dreamportrait.systems.freestyle.study import Steps, Study, Tools

    device, vector, prior = find_device(asked.device), None, None
    near = ",".join(each.name for each in STYLES if not each.far)
    styles = tuple(style(name.strip()).name for name in (asked.styles or near).split(","))
    judges = load_judges(asked.oracle, asked.clip, asked.offline, device)
    pipe = StylePipeline.from_pretrained(asked.model, device=device, offline=asked.offline)
    if asked.vector is not None:
        vector = PictureTo3D(load_network_of(locate_model(asked.vector)).to(device), pipe.base.generator)
        if (size := vector.i2t.config.code_size) != 1:
            raise ValueError(f"--vector {asked.vector}: its code is {size} x {size}; name a model of code_size=1")
    if asked.diffusion != "none":
        prior = load_stable_diffusion(asked.diffusion, offline=asked.offline, device=device)
    few_shot = replace(pipe.model.few_shot, identities=1, views=asked.views)
    tuning = replace(of_all_weights(pipe.model.tuning), lr=RATE, decay=True)
    if asked.tune_steps is not None:
        tuning = replace(tuning, steps=asked.tune_steps)
    steps = Steps(*(max(1, round(asked.steps * count)) for count in vars(Steps()).values()))
    perceptual = make_perceptual(pipe.model.perceptual, asked.offline, device)
    tools = Tools(pipe.base, pipe.editing.editor, judges, perceptual, prior, vector)
    return tools, Study(out, rows, styles, asked.faces, asked.seeds, few_shot, tuning, steps)


def keep_distances(study: "Study", tools: "Tools") -> None:
    """Write the distances of each row's pictures to exact ones, if there is a judge of pictures."""
    from dreamportrait.systems.freestyle.study_scores import distances

    if tools.judges.scorer is not None:
        found = distances(study, tools.judges.scorer, tools.base.generator.config, EXACT)
        write_text(study.out / "distances.json", json.dumps(found, indent=1) + "\n")


def rendered(out: Path) -> str:
    from dreamportrait.systems.freestyle.study_page import read_results
    from dreamportrait.systems.freestyle.study_page import render as as_page

    path = out / "distances.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    distances = {row: {int(seed): value for seed, value in seeds.items()} for row, seeds in stored.items()}
    return as_page(read_results(out), distances)


if __name__ == "__main__":
    main()
