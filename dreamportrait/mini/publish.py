"""Make the shipped folder of `mini`, the default text-to-3D model, from a finished run.

\b
    dreamportrait evaluate --checkpoint RUN/portrait --dataset miniworld:test --out TEST
    dreamportrait evaluate --checkpoint RUN/portrait --dataset miniworld:combinations --out COMBINATIONS
    python -m dreamportrait.mini.ceilings --split test --out CEILINGS
    python -m dreamportrait.mini.publish RUN OUT --test TEST --combinations COMBINATIONS --ceilings CEILINGS

The test faces are measured once, when a model is published; every choice before that is made on miniworld:validation.
OUT becomes a sealed folder with the generator in half precision (without discriminator), the run's configuration, a
sheet and a model card.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from dreamportrait.core.errors import WeightsError, one_message
from dreamportrait.metrics import report
from dreamportrait.mini import cards, ceilings
from dreamportrait.systems.dreamportrait.hub import USE
from dreamportrait.weights.registry import NAMES, locate
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


SHOWN_ATTRIBUTES = (
    "expression",
    "eyewear",
    "hat",
    "facial_hair",
    "earrings",
)  # the ones that text often fails to change


class Measured(NamedTuple):
    """What was measured of the model that is published."""

    test: Mapping[str, Any]  # scores.json of `dreamportrait evaluate`
    combinations: Mapping[str, Any]
    ceilings: Mapping[str, Any]  # of ceilings.py
    tables: tuple[str, str]  # of test and combinations


def read_measured(test: Path, combinations: Path, ceilings_file: Path) -> Measured:
    """Read the scores. Raise WeightsError unless they are of one generator, and of the data that a card reports."""
    folders = {"miniworld:test": test, "miniworld:combinations": combinations}
    reports = {name: _json(folder / report.JSON) for name, folder in folders.items()}
    for name, found in reports.items():
        if (source := found["dataset"]["source"]) != name:
            raise WeightsError(f"{folders[name]} was measured on {source}, not on {name}; measure it again")
    hashes = [found["checkpoint"]["sha256"] for found in reports.values()]
    if len(set(hashes)) > 1:
        raise WeightsError(f"{test} and {combinations} were measured of different generators; measure one again")
    limits, protocol = _json(ceilings_file), reports["miniworld:test"]["protocol"]
    same = {"dataset": "miniworld:test", "prompts": protocol["prompts_for_diversity"]}
    same["per_prompt"] = protocol["per_prompt"]
    if wrong := [f"{name} is {limits[name]}, not {value}" for name, value in same.items() if limits[name] != value]:
        raise WeightsError(f"{ceilings_file}: {'; '.join(wrong)}; measure the ceilings as the model was measured")
    texts = [(folder / report.MARKDOWN).read_text(encoding="utf-8") for folder in folders.values()]
    first, second = (text.partition("\n## ")[0].partition("\n\n")[2].strip() for text in texts)
    return Measured(reports["miniworld:test"], reports["miniworld:combinations"], limits, (first, second))


def _json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def publish(run: Path, out: Path, measured: Measured) -> None:
    from dreamportrait.systems.dreamportrait import folder as weights
    from dreamportrait.systems.dreamportrait.config import load_config
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline
    from dreamportrait.training.run_folder import CONFIG, RESULT
    from dreamportrait.weights.hashing import weights_hash

    if out.exists():
        raise WeightsError(f"{out} exists; name another folder, or remove it")
    found, config = weights.load_portrait(run / RESULT), weights.load_portrait_config(run / RESULT)
    if weights_hash(found.generator) != measured.test["checkpoint"]["sha256"]:
        raise WeightsError(f"the scores are not those of {run / RESULT}; measure it again")
    unfinished = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        parts = found.generator, None, found.text
        about: dict[str, Any] = {"licence": cards.LICENCE, "pretrained": config.pretrained, "inverter": found.inverter}
        # The generator is stored once, if training left it as it was.
        same = config.pretrained in NAMES and is_stored(config.pretrained, found.generator.generator)
        weights.save_portrait(unfinished, *parts, **about, half=True, store_generator=not same)
        pipe = DreamPortraitPipeline.from_pretrained(unfinished)
        pipe(list(PROMPTS), seed=1, num_views=5).save_sheet(unfinished / cards.SHEET)
        cards.shrink(unfinished / cards.SHEET)
        recipe = load_config(run / CONFIG, ["run.folder=runs"])  # the run's own path means nothing to others
        (unfinished / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")  # after loading, which verifies the seal
        shared = sum(x.numel() for x in found.generator.generator.state_dict().values()) if same else 0
        count = f"{(cards.parameters(unfinished) + shared) / 1e6:.2f} million parameters, licence {cards.LICENCE}."
        (unfinished / cards.CARD).write_text(card(count, measured), encoding="utf-8")
        seal(unfinished)
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_stored(name: str, generator: Any) -> bool:
    """Return whether a model of the package has exactly these weights."""
    from dreamportrait.eg3d.folder import load_generator
    from dreamportrait.weights.hashing import weights_hash

    return weights_hash(load_generator(locate(name))) == weights_hash(generator)


def card(count: str, measured: Measured) -> str:
    lines = "from dreamportrait import DreamPortraitPipeline\n\n"
    lines += 'pipe = DreamPortraitPipeline.from_pretrained("mini")'
    parts = [
        "# mini",
        "Text to 3D heads of the miniature world: mini/eg3d, whose mapper holds a text prior in W and hears "
        "mini/clip-a.",
        count,
        f"```python\n{lines}\n```",
        "## Recipe",
        f"`python train.py --config {RECIPE}` in this folder: [{RECIPE}]({RECIPE}) holds every setting of the run.",
        "## Scores",
        f"Measured with version {measured.test['code']['version']} on captions that training never saw. The judge is "
        "mini/clip-b, which is not used for training. Every choice was made on `miniworld:validation`; the test faces "
        "were measured once. On `miniworld:test`:",
        measured.tables[0],
        "On `miniworld:combinations`, faces with pairs of attributes that never occur together in training:",
        measured.tables[1],
        "Attributes that are shown as the caption says:",
        attributes(measured),
        "## Diversity and its ceilings",
        "How much portraits of one prompt differ, beside pictures that show exactly what the prompt says and beside "
        "the teacher's samples. A generator without text conditioning is no ceiling.",
        limits(measured),
        "## Use",
        USE,
        f"![one row per prompt: {'; '.join(PROMPTS)}]({cards.SHEET})",
    ]
    return "\n\n".join(parts) + "\n"


def attributes(measured: Measured) -> str:
    """Return the table of the shares of single attributes. An attribute that no caption names has none."""
    shares = [found["scores"]["oracle"]["by_attribute"] for found in (measured.test, measured.combinations)]
    rows = [
        [name, *(f"{100 * each[name]:.1f} %" if name in each else "-" for each in shares)] for name in SHOWN_ATTRIBUTES
    ]
    return report.table(["attribute", "miniworld:test", "miniworld:combinations"], rows)


def limits(measured: Measured) -> str:
    """Return the table of the model's diversity and the ceilings."""
    scores = measured.test["scores"]
    within, oracle = scores["prompt_diversity"], scores["oracle"]
    own = ceilings.Ceiling(
        features=within["features"],
        colors=within["colors"],
        across=scores["identity_diversity"]["features"],
        said=oracle["share"],
        complete=oracle["complete"],
    )
    found = {name: ceilings.Ceiling(**each) for name, each in measured.ceilings["ceilings"].items()}
    return report.table(ceilings.HEAD, ceilings.rows({"mini": own} | found))


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--test", type=click.Path(path_type=Path), required=True, help="A report on miniworld:test.")
@click.option("--combinations", type=click.Path(path_type=Path), required=True, help="On miniworld:combinations.")
@click.option("--ceilings", "limits_", type=click.Path(path_type=Path), required=True, help="Written by ceilings.py.")
def main(run: Path, out: Path, test: Path, combinations: Path, limits_: Path) -> None:
    with one_message():
        publish(run, out, read_measured(test, combinations, limits_))
    click.echo(f"wrote {out}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
