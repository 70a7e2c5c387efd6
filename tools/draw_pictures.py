"""Draw the pictures of README and docs that the shipped `mini` makes, again.

python tools/draw_pictures.py [--out docs/pictures] [--only portraits,mixing,photo,splats,styles,heads]

Run it when the weights change, and look at the pictures: the texts beside them describe what they show.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dreamportrait import DreamPortraitPipeline, StylePipeline
from dreamportrait.core.errors import one_message
from dreamportrait.export.portraits import Portrait
from dreamportrait.export.sheets import Row, draw_sheet, enlarged, save_picture, tiled
from dreamportrait.export.splats import Splats, make_splats
from dreamportrait.geometry.splat_raster import VIEWERS_BLUR
from dreamportrait.miniworld.world import load
from dreamportrait.systems.freestyle.names import shipped_styles
from dreamportrait.systems.heads.fit import around, from_views
from dreamportrait.systems.heads.folder import load_head_model

README = {
    "a woman with red hair and sunglasses": 2,
    "a young man with a goatee and a purple shirt": 1,
    "a smiling man wearing a wide yellow hat": 13,
    "a tanned lady with a purple beanie and earrings": 4,
}  # prompts and seeds
RED, BLUE = "a woman with long red hair", "an old man with a blue hat"
CAP, BEANIE = "a man wearing a green cap", "a young woman with black hair and a purple beanie"
BEARD, GLASSES = "an old man with a grey beard", "a woman with long red hair and glasses"
GROWING = ("a man", "an old man", BEARD, f"{BEARD} and glasses", f"{BEARD}, glasses and a blue hat")
WEIGHTS = ((2, 1, 0), (1, 1, 0), (0, 2, 1), (0, 1, 1), (1, 0, 2), (1, 0, 1), (1, 1, 1))
LAYERS = (1, 3, 4, 5, 6, 8)
STRENGTHS = tuple(0.25 * i for i in range(7))
PHOTOS = (3, 8, 11, 20)  # numbers of validation faces
EDITS = ("a person with a red hat", "an old man with a beard", "a woman with sunglasses")
STYLED = {
    "a woman with long red hair": 3,
    "a smiling man with a blue cap": 3,
    BEARD: 1,
    BEANIE: 7,
}  # photos; their seeds
STYLES = ("a gold statue", "a wooden puppet", "an elf", "a zombie", "a cartoon", "a clay figure")
HEADS = {"a serious woman with a purple beanie": 4, "a serious woman with a blue beanie": 0}  # portraits; their seeds
POSES: tuple[tuple[float, dict[str, float]], ...] = (
    (0.0, {}),
    (20.0, {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}),
    (-20.0, {"jawOpen": 0.7, "browInnerUp": 1.0}),
    (10.0, {"eyeBlinkLeft": 1.0, "mouthSmileLeft": 0.8}),
)  # degrees of yaw, expressions
FINER = 4  # times the size of our pictures at which splats are drawn
PALETTE = 256


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/pictures"), show_default=True)
@click.option("--only", default="portraits,mixing,photo,splats,styles,heads", show_default=True)
def main(out: Path, only: str) -> None:
    groups = {
        "portraits": portraits,
        "mixing": mixing,
        "photo": photo,
        "splats": splats,
        "styles": styles,
        "heads": heads,
    }
    with one_message():
        if unknown := set(only.split(",")) - set(groups):
            raise ValueError(f"--only {', '.join(sorted(unknown))}: must be among {', '.join(groups)}")
        pipe = DreamPortraitPipeline.from_pretrained("mini")
        for name in only.split(","):
            for title, picture in groups[name](pipe):
                path = out / f"{title}.png"
                save_picture(_few_colors(picture), path, overwrite=True)
                click.echo(path)


Drawn = Iterable[tuple[str, Image.Image]]


def portraits(pipe: DreamPortraitPipeline) -> Drawn:
    yield (
        "portraits",
        draw_sheet([Row(prompt, _views(pipe(prompt, seed=seed, num_views=5))) for prompt, seed in README.items()]),
    )


def mixing(pipe: DreamPortraitPipeline) -> Drawn:
    def steps(title: str, prompts: str | list[str], seeds: int | list[int]) -> Row:
        return Row(title, _fronts(pipe.mix(prompts, seed=seeds).steps(7)))

    three = pipe.mix([RED, BLUE, CAP], seed=5)
    told = ", ".join(" ".join(map(str, weights)) for weights in WEIGHTS)
    yield (
        "mixing_prompts",
        draw_sheet(
            [
                steps(f"{RED} to {BLUE}", [RED, BLUE], 1),
                steps(f"{BEANIE} to {CAP}", [BEANIE, CAP], 7),
                Row(f"three prompts, weights {told}", _fronts(three.blend(*weights) for weights in WEIGHTS)),
            ]
        ),
    )
    people = ((GLASSES, 1, 2), (BEARD, 3, 9), ("a person", 4, 11))
    rows = [steps(f"{prompt}, seed {a} to {b}", prompt, [a, b]) for prompt, a, b in people]
    yield "mixing_seeds", draw_sheet(rows)
    yield "mixing_layers", draw_sheet(_layers(pipe))
    grown = [Row(f"{'; '.join(GROWING)} (seed {seed})", _fronts(pipe(p, seed) for p in GROWING)) for seed in (3, 7)]
    yield "mixing_growing", draw_sheet(grown)
    strong = [(RED, 3), (CAP, 5), (BEARD, 1)]
    rows = [
        Row(f"{p}: strength 0, 0.25 ... 1.5", _fronts(pipe(p, s, strength=x) for x in STRENGTHS)) for p, s in strong
    ]
    yield "mixing_strength", draw_sheet(rows)


def _layers(pipe: DreamPortraitPipeline) -> list[Row]:
    mixes = {
        f"{CAP} to {GLASSES}": pipe.mix([CAP, GLASSES], seed=3),
        "a person, seed 3 to 9": pipe.mix("a person", seed=[3, 9]),
        "a person, seed 4 to 11": pipe.mix("a person", seed=[4, 11]),
    }
    rows = []
    for name, mix in mixes.items():
        mixed = [mix.blend(0, 1), *(mix.layered(start) for start in LAYERS), mix.blend(1, 0)]
        rows.append(Row(f"{name}: the second from layer {', '.join(map(str, LAYERS))}", _fronts(mixed)))
    return rows


def photo(pipe: DreamPortraitPipeline) -> Drawn:
    world, rows = load("validation", 600), []
    with tempfile.TemporaryDirectory() as folder:
        for number in PHOTOS:
            path = Path(folder) / f"{number}.png"
            Image.fromarray(world.images[number].transpose(1, 2, 0)).save(path)
            found = pipe.invert(path)
            click.echo(f"{number}: {', '.join(f'{name} {value:.1f} dB' for name, value in found.errors.items())}")
            same = _tensor(found.portrait.render(found.camera).images[:1])
            edits = [_tensor(found.edit(prompt).views.images[2:3]) for prompt in EDITS]
            rows.append(torch.cat([found.photo.cpu(), same, _views(found.portrait)[[0, 2, 4]], *edits]))
    yield "photo", _larger(tiled(rows), 2)


def splats(pipe: DreamPortraitPipeline) -> Drawn:
    """Draw two portraits from four cameras: by the model, as splats, and as splats without background."""
    columns = []
    for prompt, seed in ((RED, 3), ("a smiling man with a blue cap", 3)):
        head = pipe(prompt, seed).head
        cameras = torch.cat([head.generator.config.around([yaw]) for yaw in (-20.0, -7.0, 7.0, 20.0)])
        drawn = [head.views(cameras)[0].colors.float().cpu()]
        for background in (True, False):
            drawn.append(_drawn(make_splats(head, background=background), cameras, drawn[0].shape[-1]))
        columns.append(drawn)
    yield "splats", _larger(tiled([torch.cat(row) for row in zip(*columns, strict=True)]), 3)


def styles(pipe: DreamPortraitPipeline) -> Drawn:
    """Draw a row for each photo: it, and what instructions and then what learnt styles make of it, from a side."""
    styling, told, learnt = StylePipeline.from_pretrained("mini"), [], []
    for prompt, seed in STYLED.items():
        portrait = pipe(prompt, seed, num_views=1, yaw_range=(0, 0))
        photo, seen = Image.fromarray(portrait.images[0]), _views(portrait)
        heads = [styling(photo, f"turn the head into {style}", seed=1, yaw_range=(20, 20)) for style in STYLES]
        told.append(torch.cat([seen, *(_views(head) for head in heads)]))
        heads = [styling.apply(photo, style, yaw_range=(20, 20)) for style in shipped_styles()]
        learnt.append(torch.cat([seen, *(_views(head) for head in heads)]))
    yield "instructions", _larger(tiled(told), 2)
    yield "learnt", _larger(tiled(learnt), 2)


def heads(pipe: DreamPortraitPipeline) -> Drawn:
    """Draw a row for each portrait that became a rig: at rest, turned and smiling, with an open mouth, winking."""
    model = load_head_model("mini/head")
    made = [from_views(model, around(pipe(prompt, seed).head)) for prompt, seed in HEADS.items()]
    rows = [torch.cat([head.posed(**values).view(yaw).colors for yaw, values in POSES]) for head in made]
    yield "heads", tiled(rows)


def _few_colors(picture: Image.Image) -> Image.Image:
    """Make a picture about half as large on disk."""
    return picture.quantize(PALETTE, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)


def _larger(picture: Image.Image, scale: int) -> Image.Image:
    return enlarged(picture, picture.width * scale)


def _drawn(made: Splats, cameras: Tensor, size: int) -> Tensor:  # [M, 25] -> [M, 3, size, size] in -1 .. 1
    """Draw splats as viewers do, at a larger size, on white."""
    pictures = [drawn.colors + 1 - drawn.opacity for drawn in made.draw(cameras, FINER * size, VIEWERS_BLUR)]
    return F.avg_pool2d(torch.stack(pictures).clamp(0, 1), FINER) * 2 - 1


def _views(portrait: Portrait) -> Tensor:  # [V, 3, R, R]
    return _tensor(portrait.views.images)


def _fronts(made: Iterable[Portrait]) -> Tensor:  # [N, 3, R, R]
    """Return the middle view of each portrait."""
    return torch.cat([(views := _views(portrait))[len(views) // 2 :][:1] for portrait in made])


def _tensor(images: np.ndarray) -> Tensor:  # [N, R, R, 3] uint8 -> [N, 3, R, R]
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    main()
