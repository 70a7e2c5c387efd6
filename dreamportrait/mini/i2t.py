"""The image-to-triplane network of mini/eg3d: pretraining on heads that are drawn once, and its scores.

Drawing a head and rendering its front takes half as long as a training step, so a number of w and fronts is kept; their
planes are made again in each step, because they are large.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.core.files import check_new
from dreamportrait.eg3d.folder import load_generator
from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.export.sheets import tiled
from dreamportrait.geometry.images import as_saved, from_bytes, to_bytes
from dreamportrait.metrics.world_oracle import AttributeReader
from dreamportrait.mini.cards import LICENCE, SCORES
from dreamportrait.mini.diffusion.evaluation import psnr
from dreamportrait.mini.diffusion.unet import cached
from dreamportrait.miniworld.attributes import ATTRIBUTES, is_visible
from dreamportrait.systems.freestyle.config import I2TConfig
from dreamportrait.systems.freestyle.fewshot import FewShotSettings
from dreamportrait.systems.freestyle.folder import save_model
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import Sampling
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.pretraining import Pairs, PretrainSettings, draw_ws, pretrain
from dreamportrait.systems.freestyle.prompts import Wording
from dreamportrait.systems.freestyle.tuning import TuneSettings
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.seals import seal

SETTINGS = PretrainSettings(
    images=24_000,
    batch=8,
    lr=0.03,
    render_share=0.15,
    yaw=25.0,
    pitch=7.0,
    statistics=1024,
    ema_images=2_000,
    seed=12,
)
PAIRS = 8_000  # heads that are drawn
SIZES: dict[str, Any] = {"code_size": 16, "code_channels": 64, "channel_max": 96, "around": "guess"}
# Chosen on a gold statue and an elf, on generated faces that no score is reported of.
TUNING = TuneSettings(steps=600, views=2, lr=0.02, decay=True, rank=4, offset_stride=2)
SCORED, SHOWN, BATCH = 200, 8, 20
SEED = 13  # of the heads that are scored
PRETRAINED, EDITOR, PERCEPTUAL = "mini/eg3d", "mini/ip2p", "clip:mini/clip-s"
# Cameras within the generator's range; words and scales that mini/ip2p knows.
FEW_SHOT = FewShotSettings(
    yaw=25.0,
    pitch=7.0,
    truncation=1.0,
    sampling=Sampling(text_scale=1.5),
    wording=Wording(decorative="sharp, detailed", negative="blurred"),
)


class Recorded:
    """Heads with their fronts, drawn once. Their planes are made when they are needed."""

    def __init__(self, generator: TriPlaneGenerator, w: Tensor, fronts: Tensor) -> None:
        self.generator = generator
        self.w = w  # [M, w_dim]
        self.fronts = fronts  # [M, 3, R, R] uint8

    @classmethod
    def of(cls, generator: TriPlaneGenerator, count: int, seed: int, cache: Path) -> "Recorded":
        """Draw heads. Their fronts are rendered once and then read from `cache`."""
        torch.manual_seed(seed)
        w = draw_ws(generator, count, 1.0)[:, 0]

        def fronts() -> Array:
            return np.concatenate([to_bytes(_front(generator, part)).transpose(0, 3, 1, 2) for part in w.split(BATCH)])

        name = f"fronts-{count}-{seed}-{weights_hash(generator)[:12]}.npy"
        return cls(generator, w.cpu(), torch.from_numpy(cached(cache / name, fronts).copy()))

    @torch.no_grad()
    def draw(self, count: int) -> Pairs:
        """Draw heads with torch's global generator."""
        return self.at(torch.randint(len(self.w), (count,)))

    @torch.no_grad()
    def at(self, chosen: Tensor) -> Pairs:
        device = next(self.generator.parameters()).device
        w = self.w[chosen].to(device)
        ws = w[:, None].expand(-1, self.generator.num_ws, -1)
        planes = self.generator.synthesize_planes(ws, noise="const")
        return Pairs(w, planes, from_bytes(self.fronts[chosen]).to(device))


@torch.no_grad()
def _front(generator: TriPlaneGenerator, w: Tensor) -> Tensor:  # [N, w_dim] -> [N, 3, R, R]
    ws = w[:, None].expand(-1, generator.num_ws, -1)
    camera = generator.config.around([0.0]).to(w).expand(len(w), -1)
    return generator.render(generator.synthesize_planes(ws, noise="const"), camera, w=ws).image


class Scores(NamedTuple):
    plane_error: float  # mean absolute error over mean absolute value
    psnr_front: float  # dB, against the generator's own pictures
    psnr_25_degrees: float
    depth_error: float
    attributes: float | None  # share that mini/oracle reads as in the generator's own pictures


def train(
    eg3d: Path,
    out: Path,
    work: Path,
    *,
    settings: PretrainSettings = SETTINGS,
    pairs: int = PAIRS,
    scored: int = SCORED,
    oracle: AttributeReader | None = None,  # None = attributes are not compared
    device: str = "cpu",
) -> None:
    """Pretrain the network on a generator's heads and write a free-style model. A stopped run continues from `work`."""
    check_new(out)
    generator = load_generator(eg3d).to(device).requires_grad_(False)
    torch.manual_seed(settings.seed)
    network = ImageToTriplane(I2TConfig.fitting(generator.config, **SIZES))
    network.to(device).to(memory_format=torch.channels_last)  # a step on a CPU takes a fifth less
    recorded = Recorded.of(generator, pairs, settings.seed, work)
    made = pretrain(PictureTo3D(network, generator), settings, work, draw=recorded.draw)
    held_out = Recorded.of(generator, scored, SEED, work)
    found = measure(PictureTo3D(made, generator), held_out, oracle)
    save_model(
        out,
        made.cpu().to(memory_format=torch.contiguous_format),
        generator.cpu(),
        licence=LICENCE,
        pretrained=PRETRAINED,
        editor=EDITOR,
        perceptual=PERCEPTUAL,
        few_shot=FEW_SHOT,
        tuning=TUNING,
        sheet=tiled(shown(PictureTo3D(made, generator), held_out)),
        half=True,
    )
    (out / SCORES).write_text(json.dumps({"heads": scored, **found._asdict()}, indent=2) + "\n", encoding="utf-8")
    seal(out)


@torch.no_grad()
def measure(styled: PictureTo3D, held_out: Recorded, oracle: AttributeReader | None) -> Scores:
    """Compare heads from fronts with the generator's own heads."""
    rows, agreed = [], []
    for chosen in torch.arange(len(held_out.w)).split(BATCH):
        pairs = held_out.at(chosen)
        made = styled.heads(pairs.front)
        front, *sides = [_views(styled, made, pairs, yaw) for yaw in (0.0, -25.0, 25.0)]
        relative = (made.planes - pairs.planes).abs().mean() / pairs.planes.abs().mean()
        depth = (front[0].depth - front[1].depth).abs().mean()
        rows.append([float(relative), _psnr(*front), sum(_psnr(*side) for side in sides) / 2, float(depth)])
        if oracle is not None:
            faces = zip(*(oracle.read(view.image) for view in front), strict=True)
            agreed += [a[n] == b[n] for a, b in faces for n in ATTRIBUTES if is_visible(a, n) and is_visible(b, n)]
    means = {name: round(x, 4) for name, x in zip(Scores._fields, torch.tensor(rows).mean(0).tolist(), strict=False)}
    return Scores(**means, attributes=round(sum(agreed) / len(agreed), 4) if agreed else None)


def _psnr(made: Rendering, real: Rendering) -> float:
    return psnr(as_saved(made.image), as_saved(real.image))


def _views(styled: PictureTo3D, made: Planes, pairs: Pairs, yaw: float) -> tuple[Rendering, Rendering]:
    """Return a view of predicted heads, and of the generator's own."""
    camera = styled.generator.config.around([yaw]).to(pairs.w).expand(len(pairs.w), -1)
    return made.view(camera), styled.generator.render(pairs.planes, camera, w=styled.ws(pairs.w))


@torch.no_grad()
def shown(styled: PictureTo3D, held_out: Recorded) -> list[Tensor]:
    """Return rows of pictures: fronts, and what the network makes of them from the front and from a side."""
    pairs = held_out.at(torch.arange(min(SHOWN, len(held_out.w))))
    made = styled.heads(pairs.front)
    views = [_views(styled, made, pairs, yaw) for yaw in (0.0, 25.0)]
    return [pairs.front, views[0][0].image, views[1][0].image, views[1][1].image]
