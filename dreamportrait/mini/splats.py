"""Training of the network that corrects splats: renders of the splats approach those of the generator.

    python -m dreamportrait.mini.splats --work WORK --out OUT [--model mini]

Every few steps take a new portrait, with a random caption and seed, as splats of a random number. Each step draws them
from a random camera of the trained range and compares the picture with the generator's. A stopped run continues.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_new
from dreamportrait.eg3d.planes import Planes, trained_angles
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.splat_head import SplatHead, gaussians, save_splat_head
from dreamportrait.export.splat_points import SurfacePoints, surface_points
from dreamportrait.geometry.splat_raster import VIEWERS_BLUR, draw_splats
from dreamportrait.miniworld.attributes import read_code, sample_codes
from dreamportrait.miniworld.captions import describe
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr

STEPS, SEED = 900, 0
LEARNING_RATE = 4e-3
VIEWS = 4  # steps with the same portrait
COUNTS = (65_536, 32_768, 16_384)  # splats of a portrait, in turn
FIRST_SEED = 1_000_000  # seeds of training portraits start here; smaller ones are for people and for measuring
IDENTITIES = 4096  # whose captions are drawn
# Viewers blur by this many pixels^2, but at several times the resolution of our pictures.
BLUR = VIEWERS_BLUR / 16
SQUARES = 5.0  # weight of squared differences beside absolute ones

MakeHead = Callable[[str, int], Planes]  # a caption and a seed


def train(make: MakeHead, generator: TriPlaneGenerator, out: Path, work: Path, steps: int = STEPS) -> None:
    """Train for one generator and write config.json and model.safetensors to `out`. A stopped run continues."""
    check_new(out)
    training = SplatTraining(make, generator, steps)
    state: dict[str, Stateful] = {"network": training.network, "optimizer": training.optimizer}
    fit(training.step, state, steps, work, seed=SEED, save_every=100, log_every=20, title="splats")
    settings = {"steps": steps, "views": VIEWS, "counts": COUNTS, "seed": SEED}
    save_splat_head(training.network, out, generator, name="splats", training=settings)


class SplatTraining:
    """The network, its optimiser and the training step."""

    def __init__(self, make: MakeHead, generator: TriPlaneGenerator, steps: int) -> None:
        self.make, self.generator, self.steps = make, generator, steps
        self.captions = captions(IDENTITIES)
        self.current: tuple[int, SurfacePoints, Tensor, Tensor] | None = None
        torch.manual_seed(SEED)
        self.network = SplatHead()
        self._normalise()
        self.optimizer = torch.optim.Adam(self.network.parameters(), betas=(0.9, 0.98))

    def step(self, index: int) -> dict[str, Tensor]:
        set_lr(self.optimizer, cosine(index, self.steps, LEARNING_RATE, warmup=20))
        points, cameras, pictures = self._portrait(index // VIEWS)
        camera, wanted = cameras[index % VIEWS], pictures[index % VIEWS]
        drawn = draw_splats(*gaussians(points, self.network), camera, wanted.shape[-1], BLUR).colors
        difference = drawn - wanted
        squares = difference.square().mean()
        loss = difference.abs().mean() + SQUARES * squares
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss, "psnr": -10 * torch.log10(squares.detach())}

    def _portrait(self, number: int) -> tuple[SurfacePoints, Tensor, Tensor]:
        """Return the points of a training portrait, cameras [VIEWS, 25] and the pictures [VIEWS, 3, R, R], 0 .. 1."""
        if self.current is None or self.current[0] != number:
            head = self.make(self.captions[number % len(self.captions)], FIRST_SEED + number)
            cameras = random_cameras(self.generator, VIEWS, FIRST_SEED + number)
            pictures = (head.views(cameras)[0].colors.float() + 1) / 2
            self.current = number, surface_points(head, COUNTS[number % len(COUNTS)]), cameras, pictures
        return self.current[1:]

    def _normalise(self) -> None:
        """Set the scale of the features from the first portraits."""
        features = torch.cat([self._portrait(number)[0].features for number in range(len(COUNTS))])
        self.network.mean.copy_(features.mean(0))
        self.network.deviation.copy_(features.std(0).clamp(min=0.1))


def captions(count: int) -> list[str]:
    """Return one caption of each of `count` random faces."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    return [describe(read_code(code)[0], rng) for code in sample_codes(count, FIRST_SEED)]


def random_cameras(generator: TriPlaneGenerator, count: int, seed: int) -> Tensor:  # [count, 25]
    """Draw cameras evenly over the yaws and pitches that the generator was trained with."""
    rng = torch.Generator().manual_seed(seed)
    limits = torch.tensor([min(limit, 89.0) for limit in trained_angles(generator)])
    angles = (torch.rand(count, 2, generator=rng) * 2 - 1) * limits
    return torch.cat([generator.config.around([yaw], pitch) for yaw, pitch in angles.tolist()])


@click.command()
@click.option("--model", default="mini", show_default=True, help="mini, or a folder written by training.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Checkpoint and log.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder of finished weights.")
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True)
def main(model: str, work: Path, out: Path, steps: int) -> None:
    """Train the network that corrects splats of a model's portraits."""
    with one_message():
        from dreamportrait.pipeline import DreamPortraitPipeline

        pipe: Any = DreamPortraitPipeline.from_pretrained(model, offline=True)
        train(lambda caption, seed: pipe(caption, seed).head, pipe.generator.generator, out, work, steps)


if __name__ == "__main__":
    main()
