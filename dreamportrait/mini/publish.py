"""Make the shipped folder of `mini`, the default text-to-3D model, from a finished run.

    python -m dreamportrait.mini.publish RUN SCORES OUT

SCORES is the folder that `dreamportrait evaluate --checkpoint RUN/portrait --out SCORES` wrote. OUT becomes a sealed
folder with the generator in half precision (without discriminator), the run's configuration, a sheet and a model card.
"""

import json
import os
import secrets
import shutil
from pathlib import Path

import click

from dreamportrait.core.errors import WeightsError, one_message
from dreamportrait.metrics import report
from dreamportrait.mini import cards
from dreamportrait.weights.seals import seal

RECIPE = "training.yaml"
PROMPTS = (
    "a woman with long red hair",
    "an old man with a grey beard and glasses",
    "a man wearing a green cap",
    "a bald man with sunglasses",
    "a young woman with black hair and a purple beanie",
    "a smiling man with blond hair and a moustache",
)


def publish(run: Path, scores: Path, out: Path) -> None:
    from dreamportrait.systems.dreamportrait import folder as weights
    from dreamportrait.systems.dreamportrait.config import load_config
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
    from dreamportrait.training.run_folder import CONFIG, RESULT

    if out.exists():
        raise WeightsError(f"{out} exists; name another folder, or remove it")
    found, config = weights.load_portrait(run / RESULT), weights.load_portrait_config(run / RESULT)
    measured = json.loads((scores / report.JSON).read_text(encoding="utf-8"))
    unfinished = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        parts = found.generator, None, found.text
        weights.save_portrait(unfinished, *parts, licence=cards.LICENCE, pretrained=config.pretrained, half=True)
        pipe = DreamPortraitPipeline.from_pretrained(unfinished)
        pipe(list(PROMPTS), seed=1, num_views=5).save_sheet(unfinished / cards.SHEET)
        cards.shrink(unfinished / cards.SHEET)
        recipe = load_config(run / CONFIG, ["run.folder=runs"])  # the run's own path means nothing to others
        (unfinished / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")  # after loading, which verifies the seal
        count = f"{cards.parameters(unfinished) / 1e6:.2f} million parameters, licence {cards.LICENCE}."
        text = card(count, (scores / report.MARKDOWN).read_text(encoding="utf-8"), measured["code"]["version"])
        (unfinished / cards.CARD).write_text(text, encoding="utf-8")
        seal(unfinished)
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def card(count: str, scores: str, version: str) -> str:
    use = "from dreamportrait import DreamPortraitPipeline\n\n"
    use += 'pipe = DreamPortraitPipeline.from_pretrained("mini")'
    table = scores.partition("\n## ")[0].partition("\n\n")[2].strip()
    parts = [
        "# mini",
        "Text to 3D heads of the miniature world: mini/eg3d, conditioned by mini/clip-a and trained with guidance "
        "from mini/diffusion.",
        count,
        f"```python\n{use}\n```",
        "## Recipe",
        f"`python train.py --config {RECIPE}` in this folder: [{RECIPE}]({RECIPE}) holds every setting of the run.",
        "## Scores",
        f"Measured with version {version} on captions that training never saw. The judge is mini/clip-b, which is not "
        "used for training.",
        table,
        f"![one row per prompt: {'; '.join(PROMPTS)}]({cards.SHEET})",
    ]
    return "\n\n".join(parts) + "\n"


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("scores", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(run: Path, scores: Path, out: Path) -> None:
    with one_message():
        publish(run, scores, out)
    click.echo(f"wrote {out}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
