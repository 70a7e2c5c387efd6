"""Sheets of pretraining: what H makes of fronts that the generator drew."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from PIL import Image

from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.sheets import Row, draw_sheet, save_picture
from dreamportrait.systems.freestyle.fewshot import draw_heads
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.module import PretrainingModule
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.training.every import Every

SEEDS = range(4)
VIEWS = (-25.0, 0.0, 25.0)  # degrees from the front


class SampleSheets(Every):
    """Draw samples/images-N.png with the running average."""

    def __init__(self, images: int, folder: Path, generator: TriPlaneGenerator) -> None:
        super().__init__(images)
        self.folder, self.generator = folder / "samples", generator

    def act(self, trainer: Trainer, module: PretrainingModule) -> None:
        if trainer.is_global_zero:
            path = self.folder / f"images-{module.images:09d}.png"
            save_picture(compared(module.averaged, self.generator), path, overwrite=True)


@torch.no_grad()
def compared(network: ImageToTriplane, generator: TriPlaneGenerator, truncation: float = 0.7) -> Image.Image:
    """Draw a row for each of some heads: three views by the generator, then those of what H makes of the front."""
    heads = draw_heads(generator, list(SEEDS), truncation)
    cameras = generator.config.around(VIEWS).to(heads.planes.device)
    seen = heads.views(cameras)
    fronts = torch.cat([views.colors[1:2].clamp(-1, 1) for views in seen])  # [S, 3, R, R]
    was_training = network.training
    made = PictureTo3D(network.eval(), generator).heads(fronts).views(cameras)
    network.train(was_training)
    return draw_sheet([Row("", torch.cat([a.colors, b.colors])) for a, b in zip(seen, made, strict=True)])
