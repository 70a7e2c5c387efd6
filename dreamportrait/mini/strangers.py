"""Measure which pictures a model takes for strangers: how often `invert` says that a photo is not of its world.

    python -m dreamportrait.mini.strangers mini

Faces of miniworld:validation are of its world. All others are not: the same faces cropped, turned or inverted, plain
surfaces, noise, and the photographs that come with scikit-image, among them a hundred faces of people. The limit was
chosen on these pictures.
"""

from collections.abc import Callable

import click
import numpy as np
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

from dreamportrait.core.errors import WeightsError, one_message
from dreamportrait.geometry.images import antialiased, from_bytes
from dreamportrait.metrics import report
from dreamportrait.miniworld.world import load
from dreamportrait.prior.inversion import PictureFeatures
from dreamportrait.systems.dreamportrait.folder import load_portrait
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.systems.dreamportrait.own_world import LIMIT, OwnWorld, features_of_own_pictures
from dreamportrait.text.loading import load_clip

FACES, OTHERS = 400, 100
PHOTOGRAPHS = ("astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket")


@torch.no_grad()
def measure(source: str, faces: int = FACES) -> dict[str, Tensor]:
    """Return the strangeness of pictures, by kind."""
    made = load_portrait(locate_portrait(source))
    if made.inverter is None:
        raise WeightsError(f"{source} holds no network from pictures to w; train it with a stage `prior`")
    see, generator = PictureFeatures(load_clip(made.text.clip).model), made.generator.generator
    world = OwnWorld(features_of_own_pictures(generator, see, lambda _: None))
    size = generator.config.image_resolution
    real = from_bytes(torch.tensor(load("validation", faces).images))
    kinds = {"faces of the miniature world": real, **strangers(real[:OTHERS], size)}
    return {name: world.strangeness(torch.cat([see(each) for each in x.split(25)])) for name, x in kinds.items()}


def strangers(faces: Tensor, size: int) -> dict[str, Tensor]:  # [N, 3, R, R] in -1 .. 1
    """Return pictures that are none of the miniature world, by kind."""
    random, quarter = torch.Generator().manual_seed(0), size // 4

    def noise(side: int) -> Tensor:
        return torch.rand(OTHERS, 3, side, side, generator=random) * 2 - 1

    def enlarged(x: Tensor) -> Tensor:
        return F.interpolate(x, (size, size), mode="bicubic").clamp(-1, 1)

    return {
        "the middle of these faces, enlarged": enlarged(faces[..., quarter:-quarter, quarter:-quarter]),
        "these faces on their side": faces.rot90(1, (2, 3)),
        "these faces upside down": faces.flip(2),
        "negatives of these faces": -faces,
        "these faces in gray": faces.mean(1, keepdim=True).expand(-1, 3, -1, -1),
        "plain colours": noise(1).expand(-1, -1, size, size),
        "clouds of colour": enlarged(noise(8)),
        "noise": noise(size),
        "photographs of scikit-image": torch.cat([photograph(getattr(data, name), size) for name in PHOTOGRAPHS]),
        "photographs of faces (LFW)": enlarged(_tensor(data.lfw_subset()[:OTHERS])),
    }


def photograph(take: Callable[[], np.ndarray], size: int) -> Tensor:  # [1, 3, size, size] in -1 .. 1
    """Return the middle of a photograph as a square picture."""
    pixels = np.atleast_3d(take()).astype(np.float32) / 255
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(pixels[top : top + side, left : left + side, :3]).permute(2, 0, 1)
    return antialiased(square[None].expand(-1, 3, -1, -1) * 2 - 1, size).clamp(-1, 1)


def _tensor(gray: np.ndarray) -> Tensor:  # [N, H, W] in 0 .. 1 -> [N, 3, H, W] in -1 .. 1
    return torch.from_numpy(gray).float()[:, None].expand(-1, 3, -1, -1) * 2 - 1


@click.command(help=__doc__)
@click.argument("source")
@click.option("--faces", type=click.IntRange(OTHERS), default=FACES, show_default=True)
def main(source: str, faces: int) -> None:
    with one_message():
        found = measure(source, faces)
        rows = [
            [
                name,
                str(len(x)),
                f"{float(x.median()):.2f}",
                f"{float(x.max()):.2f}",
                f"{100 * (x > LIMIT).float().mean():.1f} %",
            ]
            for name, x in found.items()
        ]
        click.echo(report.table(["pictures", "number", "median", "largest", f"above {LIMIT}"], rows))


if __name__ == "__main__":
    main()
