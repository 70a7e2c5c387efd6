"""Measure what of a real picture the w keep that a model's network from pictures to w gives it.

    python -m dreamportrait.mini.kept mini [--pairs RUN/prior/pairs.safetensors]

The text prior learns from these w, paired with captions of the pictures, so it cannot say what they lose. The oracle
reads the frontal renders of the w of 600 validation faces. Beside it stand the pictures themselves and renders of the
pretrained generator for random codes, whose attributes the miniature world knows: what the generator cannot draw.
With --pairs, it also reads the draws that the text prior of a run learnt from, of the first training faces.
"""

from pathlib import Path

import click
import torch
from torch import Tensor

from dreamportrait.core.errors import WeightsError, one_message
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.metrics import report, world_oracle
from dreamportrait.mini.oracle import accuracy
from dreamportrait.miniworld.attributes import ATTRIBUTES, read_code
from dreamportrait.miniworld.world import load
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.mapper import PriorMapper
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.systems.dreamportrait.prior import fitted_pairs
from dreamportrait.text.loading import load_clip
from dreamportrait.weights.registry import locate

FACES, BATCH = 600, 25


@torch.no_grad()
def measure(source: str, faces: int = FACES, pairs: Path | None = None) -> dict[str, dict[str, float]]:
    """Return the share of right answers of the oracle, by kind of picture and attribute.

    pairs: of a run whose pictures are the faces of `miniworld:train`, in their order.
    """
    made = load_portrait(locate_portrait(source))
    generator, mapper = made.generator.generator, made.generator.mapper
    if made.inverter is None or not isinstance(mapper, PriorMapper):
        raise WeightsError(f"{source} holds no network from pictures to w; train it with a stage `prior`")
    sizes = generator.config.w_dim, made.generator.conditioning.text_width
    learnt_from = None if pairs is None else fitted_pairs(pairs, *sizes)
    world, oracle = load("validation", faces), world_oracle.load(locate("mini/oracle"))
    pictures, z = from_bytes(torch.tensor(world.images)), torch.tensor(world.codes)
    see = PictureFeatures(load_clip(made.text.clip).model)
    found = torch.cat([made.inverter(see(part)) for part in pictures.split(BATCH)])
    own = generator.map(z, generator.config.around([0.0]).expand(len(z), -1))[:, 0]
    codes = [read_code(code)[0] for code in world.codes]
    measured = {
        "real pictures": accuracy(oracle, pictures, world.attributes),
        "generator": accuracy(oracle, drawn(generator, own), codes),
        "their w": accuracy(oracle, drawn(generator, mapper.space.leave(found)), world.attributes),
    }
    if learnt_from is not None:
        draws = learnt_from.x[:faces, 0].float()
        world = load("train", len(draws))
        measured["draws"] = accuracy(oracle, drawn(generator, mapper.space.leave(draws)), world.attributes)
    return measured


def drawn(generator: TriPlaneGenerator, w: Tensor) -> Tensor:  # [N, w_dim] -> [N, 3, R, R]
    """Render w from the front."""
    parts = []
    for part in w.split(BATCH):
        ws = part[:, None].expand(-1, generator.num_ws, -1)
        front = generator.config.around([0.0]).expand(len(part), -1)
        parts.append(as_saved(generator.render(generator.synthesize_planes(ws), front, w=ws).image))
    return torch.cat(parts)


@click.command(help=__doc__)
@click.argument("source")
@click.option("--faces", type=click.IntRange(20), default=FACES, show_default=True)
@click.option("--pairs", type=click.Path(path_type=Path), help="Draws of a run: RUN/prior/pairs.safetensors.")
def main(source: str, faces: int, pairs: Path | None) -> None:
    with one_message():
        found = measure(source, faces, pairs)
        rows = [[name, *(f"{100 * scores[name]:.1f} %" for scores in found.values())] for name in ATTRIBUTES]
        click.echo(report.table(["attribute", *found], rows))


if __name__ == "__main__":
    main()
