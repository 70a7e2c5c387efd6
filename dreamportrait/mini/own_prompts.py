"""Measure a model on prompts that no grammar wrote: how much of what is said do its pictures show?

    python -m dreamportrait.mini.own_prompts mini --seeds 10

The oracle reads frontal pictures of every prompt with several seeds. `said` is the share of stated attributes that are
shown, `complete` the share of pictures that show all of them.
"""

import json
from pathlib import Path

import click
import torch
from torch import Tensor

from dreamportrait.core.errors import one_message
from dreamportrait.core.files import write_text
from dreamportrait.metrics import report, world_oracle
from dreamportrait.miniworld.attributes import Attributes
from dreamportrait.miniworld.captions import agrees
from dreamportrait.systems.dreamportrait.subject import load_subject
from dreamportrait.weights.registry import locate

# Prompts, and what they state in the names of the miniature world's attributes.
_FACTS = {
    "a woman with red hair and sunglasses": "gender=woman hair_color=red eyewear=sunglasses",
    "an old man with a gray beard": "gender=man age=old hair_color=gray facial_hair=beard",
    "a bald man with glasses": "gender=man hair_style=bald eyewear=glasses",
    "a young woman with curly black hair": "gender=woman age=young hair_style=curly hair_color=black",
    "a man in a blue cap": "gender=man hat=cap hat_color=blue",
    "a woman with a red beanie": "gender=woman hat=beanie hat_color=red",
    "a dark skinned man with a moustache": "gender=man skin=dark facial_hair=moustache",
    "a pale woman with blond hair": "gender=woman skin=pale hair_color=blond",
    "a man with a goatee and a purple shirt": "gender=man facial_hair=goatee clothes=purple",
    "a smiling woman with long brown hair": "gender=woman expression=smile hair_style=long hair_color=brown",
    "a surprised man with short hair": "gender=man expression=surprised hair_style=short",
    "a woman with pink hair in a bun": "gender=woman hair_color=pink hair_style=bun",
    "a woman with red lipstick and gold earrings": "gender=woman lipstick=red earrings=gold",
    "an elderly lady with glasses": "gender=woman age=old eyewear=glasses",
    "a serious man with blue hair": "gender=man expression=neutral hair_color=blue",
    "a happy bald man with a black beard": (
        "gender=man expression=smile hair_style=bald hair_color=black facial_hair=beard"
    ),
    "a man wearing a wide yellow hat and a white shirt": "gender=man hat=wide hat_color=yellow clothes=white",
    "a woman in a green top on a pink background": "gender=woman clothes=green background=pink",
    "a man with brown skin and sunglasses": "gender=man skin=brown eyewear=sunglasses",
    "a young man with a red cap and a moustache": "gender=man age=young hat=cap hat_color=red facial_hair=moustache",
    "a blonde woman with green eyes": "gender=woman hair_color=blond eye_color=green",
    "a woman without a hat, with short gray hair": "gender=woman hat=none hair_style=short hair_color=gray",
    "a man without glasses, in an orange sweater": "gender=man eyewear=none clothes=orange",
    "a tanned lady with a purple beanie and earrings": (
        "gender=woman skin=tan hat=beanie hat_color=purple earrings=gold"
    ),
}
PROMPTS: dict[str, Attributes] = {
    prompt: dict(fact.split("=") for fact in facts.split()) for prompt, facts in _FACTS.items()
}


@torch.no_grad()
def measure(checkpoint: str, seeds: int) -> dict[str, dict[str, float]]:
    """Return `said` and `complete` of each prompt."""
    subject = load_subject(checkpoint).subject
    oracle = world_oracle.load(locate("mini/oracle"))
    z = torch.cat([_latent(seed, subject.config.z_dim) for seed in range(seeds)])
    front = subject.config.around([0.0]).expand(seeds, -1)
    found = {}
    for prompt, facts in PROMPTS.items():
        faces = oracle.read(subject.portray([prompt] * seeds, z, 1.0).view(front).image)
        shown = [[agrees(face, {name: value}) for name, value in facts.items()] for face in faces]
        found[prompt] = {
            "said": sum(map(sum, shown)) / seeds / len(facts),
            "complete": sum(map(all, shown)) / seeds,
        }
    return found


def _latent(seed: int, size: int) -> Tensor:  # [1, size], as the pipeline draws it
    return torch.randn(1, size, generator=torch.Generator().manual_seed(seed))


@click.command(help=__doc__)
@click.argument("checkpoint")
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the numbers to this JSON file.")
def main(checkpoint: str, seeds: int, out: Path | None) -> None:
    with one_message():
        found = measure(checkpoint, seeds)
        total = {name: sum(each[name] for each in found.values()) / len(found) for name in ("said", "complete")}
        rows = [[prompt, *(f"{100 * value:.0f} %" for value in each.values())] for prompt, each in found.items()]
        rows.append(["all", *(f"{100 * value:.1f} %" for value in total.values())])
        click.echo(report.table(["prompt", "said", "complete"], rows))
        if out is not None:
            write_text(out, json.dumps({"checkpoint": checkpoint, "seeds": seeds, **total, "prompts": found}, indent=2))


if __name__ == "__main__":
    main()
