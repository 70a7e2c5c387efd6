"""Training of the network that corrects splats: renders of the splats approach those of the generator.

    make mini-splats                                                             # for the shipped `mini`, in its place
    python -m dreamportrait.mini.splats --model MODEL --work WORK --out FOLDER   # for another model

Every few steps take a new portrait, with a random caption and seed, as splats of a random number. Each step draws them
from a random camera of the trained range and compares the picture with the generator's. A stopped run continues. The
finished folder has scores and a card, and is sealed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from torch import Tensor

from dreamportrait import __version__
from dreamportrait.core.errors import one_message
from dreamportrait.core.files import check_free, check_new, new_folder
from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.splat_head import SplatHead, gaussians, load_splat_head, save_splat_head
from dreamportrait.export.splat_points import SurfacePoints, surface_points
from dreamportrait.geometry.splat_raster import VIEWERS_BLUR, draw_splats
from dreamportrait.mini import cards
from dreamportrait.mini.splat_scores import measure, random_cameras
from dreamportrait.mini.train import SECONDS, clock, hardware
from dreamportrait.miniworld.attributes import read_code, sample_codes
from dreamportrait.miniworld.captions import describe
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.weights import single
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.registry import SPLATS
from dreamportrait.weights.seals import SEAL

if TYPE_CHECKING:
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

FILES = (single.CONFIG, single.WEIGHTS, cards.TRAINING, cards.SCORES, cards.CARD, SEAL)
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


def distil(
    pipe: "DreamPortraitPipeline", name: str, out: Path, work: Path, steps: int = STEPS, overwrite: bool = False
) -> None:
    """Train for the model of a pipeline, measure, and write a sealed folder with a card. A stopped run continues."""
    generator = pipe.generator.generator
    state = work / weights_hash(generator)[:12]  # a run for another model does not continue this one
    with new_folder(out, overwrite, FILES) as staging:
        with clock(state / SECONDS):
            train(lambda caption, seed: pipe(caption, seed).head, generator, staging, state, steps)
        scores = measure(pipe, load_splat_head(staging))
        stage = {
            "stage": SPLATS,
            "command": f"python -m dreamportrait.mini.splats --model {name} --steps {steps}",
            **json.loads((state / SECONDS).read_text(encoding="utf-8")),
            "hardware": hardware(str(pipe.device)),
            "code_version": __version__,
        }
        _write(staging / cards.TRAINING, {"stages": [stage]})
        _write(staging / cards.SCORES, scores)
        cards.write(staging, SPLATS)


def _write(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


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


@click.command()
@click.option("--model", default="mini", show_default=True, help="mini, or a folder written by training.")
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Checkpoint and log.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder of finished weights.")
@click.option("--steps", type=click.IntRange(1), default=STEPS, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace such a folder if it exists.")
def main(model: str, work: Path, out: Path, steps: int, overwrite: bool) -> None:
    """Train the network that corrects splats of a model's portraits, measure it, and seal its folder."""
    with one_message():
        check_free(out, overwrite, FILES)
        from dreamportrait.pipeline import DreamPortraitPipeline

        pipe = DreamPortraitPipeline.from_pretrained(model, offline=True)
        pipe.set_progress_bar_config(disable=True)
        distil(pipe, model, out, work, steps, overwrite)


if __name__ == "__main__":
    main()
