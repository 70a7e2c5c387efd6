"""A photo becomes a portrait: which w draws it, then a backbone that is tuned to it.

    found = pipe.invert("photo.png")
    found.portrait                               a head like that of any prompt
    found.errors                                 how well each step draws the photo
    found.edit("a man with a beard")             the same person, changed by a text

    1. guess      w by the network from pictures to w, or the average w where the model has none; the camera by trial
    2. search     w changes until the render looks like the photo
    3. tuning     the backbone changes at this w, for what no w of the model draws (pivotal tuning)

Only the backbone is tuned. The planes that it makes are rendered by the model's own decoder, so portraits of photos
can be exported and stored like all others.
"""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.portraits import Portrait
from dreamportrait.export.provenance import Claim
from dreamportrait.geometry.images import antialiased, as_saved
from dreamportrait.prior.inversion import Inverter, PictureFeatures
from dreamportrait.prior.space import WSpace
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.mapper import PriorMapper
from dreamportrait.systems.dreamportrait.own_world import LIMIT, OwnWorld
from dreamportrait.text.encoder import TextFeatures
from dreamportrait.training.loop import minimise

YAWS, PITCHES = (-24.0, -16.0, -8.0, 0.0, 8.0, 16.0, 24.0), (-8.0, 0.0, 8.0)  # degrees that are tried
SEARCH_RATE, TUNING_RATE = 0.05, 1e-3  # Adam's, in standard deviations of w and of the weights
LEASH = 0.01  # weight of the squared distance from the guess, in standard deviations of w
FEATURES = 0.1  # weight of the difference of picture features, in their standard deviations
SAMPLES = 2000  # w that show how w varies, where the model has no text prior

_log = logging.getLogger(__name__)


class Model(Protocol):
    """What of a pipeline is used here."""

    generator: PortraitGenerator
    inverter: Inverter | None

    @property
    def claim(self) -> Claim: ...

    @property
    def device(self) -> torch.device: ...

    def encode_prompt(self, prompt: str) -> TextFeatures: ...


@dataclass(frozen=True)
class Inversion:
    """A photo as a portrait."""

    photo: Tensor  # [1, 3, R, R] in -1 .. 1, as the generator was asked to draw it
    camera: Tensor  # [1, 25] it is seen from
    portrait: Portrait
    errors: dict[str, float]  # PSNR of the render in dB after each step: guess, search, tuning
    strangeness: float | None  # 1 = as the model's own pictures, see own_world.py. None = the model has no inverter
    notes: tuple[str, ...]  # what is to be said about the result
    pipe: Model
    tuned: PortraitGenerator  # with the tuned backbone

    @torch.no_grad()
    def edit(self, prompt: str, strength: float = 1.0) -> Portrait:
        """Change the portrait by a text. strength: 0 leaves it as it is, 1 is that of prompts."""
        text = self.pipe.encode_prompt(prompt).to(self.pipe.device)
        ws = self.portrait.head.ws
        if self.tuned.mapper is not None:
            moved = self.tuned.mapper(ws[:, 0], text.eot)
            ws = ws.lerp(moved[:, None].expand_as(ws), strength)
        planes = self.tuned.synthesize_planes(ws, text, strength=strength)
        return _portrait(self.pipe, prompt, planes, ws, self.portrait.views.cameras)


def invert(
    pipe: Model,
    photo: Tensor,  # [1, 3, R, R] in -1 .. 1
    see: PictureFeatures | None,  # of the CLIP that the model's inverter was trained with
    world: OwnWorld | None,  # of the same features. None = nobody asks whether the photo is strange
    *,
    camera: Tensor | None,  # [1, 25] that the photo was taken with. None = found by trial
    steps: int,
    tuning_steps: int,
    cameras: Tensor,  # [V, 25] of the views of the portrait
    progress: dict[str, Any],  # settings of the progress bar
) -> Inversion:
    """Find the portrait of a photo."""
    made = _Search(pipe, photo, see)
    strangeness = None if world is None or made.seen is None else float(world.strangeness(made.seen))
    notes = () if see is not None and world is None else _notes(strangeness)
    for note in notes:
        _log.warning(note)
    x = made.guess()
    camera = made.find_camera(x) if camera is None else camera.to(photo.device)
    errors = {"guess": made.psnr(x, camera)}
    with tqdm(total=steps + tuning_steps, desc="photo", **progress) as bar:
        x = made.search(x, camera, steps, bar.update)
        errors["search"] = made.psnr(x, camera)
        tuned = made.tune(x, camera, tuning_steps, bar.update)
    ws = made.ws(x)
    with torch.no_grad():
        planes = tuned.synthesize_planes(ws, None)
        errors["tuning"] = made.psnr_of(planes, ws, camera)
    portrait = _portrait(pipe, "", planes, ws, cameras)
    return Inversion(photo, camera, portrait, errors, strangeness, notes, pipe, tuned)


def _portrait(pipe: Model, prompt: str, planes: Tensor, ws: Tensor, cameras: Tensor) -> Portrait:
    head = Planes(pipe.generator.generator, planes, ws)
    (views,) = head.views(cameras)
    return Portrait(prompt, None, head, views, pipe.claim)


def _notes(strangeness: float | None) -> tuple[str, ...]:
    """Return what is to be said about the photo before the work starts."""
    if strangeness is None:
        return ("this model has no network from pictures to w, so nobody knows whether the photo is of its world",)
    if strangeness <= LIMIT:
        return ()
    return (
        "the photo is not like the pictures that this model was trained on, or is not cropped as they are: it lies "
        f"{strangeness:.1f} times as far from them as they from each other, and {LIMIT} is the limit. The portrait "
        "will be similar at best",
    )


class _Search:
    """The steps from a photo to a portrait."""

    def __init__(self, pipe: Model, photo: Tensor, see: PictureFeatures | None) -> None:
        self.portrait, self.inverter, self.photo, self.see = pipe.generator, pipe.inverter, photo, see
        self.generator: TriPlaneGenerator = pipe.generator.generator
        self.space = self._space()
        self.raw = antialiased(photo, self.generator.config.render_resolution)
        self.seen = None if see is None else see(photo).detach()

    def _space(self) -> WSpace:
        mapper = self.portrait.mapper
        return mapper.space if isinstance(mapper, PriorMapper) else space_of(self.generator)

    def guess(self) -> Tensor:  # [1, w_dim] coordinates of w
        if self.inverter is None or self.seen is None:
            return torch.zeros(1, self.generator.config.w_dim, device=self.photo.device)
        with torch.no_grad():
            out: Tensor = self.inverter.to(self.photo.device)(self.seen)
        return out

    def ws(self, x: Tensor) -> Tensor:  # [1, w_dim] -> [1, num_ws, w_dim]
        return self.space.leave(x)[:, None].expand(-1, self.generator.num_ws, -1)

    @torch.no_grad()
    def find_camera(self, x: Tensor) -> Tensor:  # [1, 25]
        """Return the camera from which the guess looks most like the photo."""
        ws, config = self.ws(x), self.generator.config
        head = Planes(self.generator, self.generator.synthesize_planes(ws), ws)
        labels = torch.cat([config.around(YAWS, pitch) for pitch in PITCHES]).to(x.device)
        errors = [(head.view(label[None]).image_raw - self.raw).abs().mean() for label in labels]
        return labels[int(torch.stack(errors).argmin())][None]

    def search(self, start: Tensor, camera: Tensor, steps: int, report: Callable[[int], object]) -> Tensor:
        """Change w until the render looks like the photo."""
        x = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([x], SEARCH_RATE)

        def loss() -> Tensor:
            ws = self.ws(x)
            leash = LEASH * (x - start).square().mean()
            return self._difference(self.generator.synthesize_planes(ws), ws, camera) + leash

        minimise(loss, optimizer, SEARCH_RATE, steps, report)
        return x.detach()

    def tune(self, x: Tensor, camera: Tensor, steps: int, report: Callable[[int], object]) -> PortraitGenerator:
        """Return a copy of the generator whose backbone draws the photo at this w."""
        tuned = copy.deepcopy(self.portrait)
        weights = list(tuned.generator.backbone.synthesis.parameters())
        for weight in weights:
            weight.requires_grad_(True)
        optimizer, ws = torch.optim.Adam(weights, TUNING_RATE), self.ws(x)

        def loss() -> Tensor:
            return self._difference(tuned.generator.synthesize_planes(ws), ws, camera)

        minimise(loss, optimizer, TUNING_RATE, steps, report)
        return tuned.requires_grad_(False)

    def _difference(self, planes: Tensor, ws: Tensor, camera: Tensor) -> Tensor:  # -> []
        """Return how much the render differs from the photo, in pixels and in features."""
        made = self.generator.render(planes, camera, w=ws)
        loss = (made.image - self.photo).abs().mean() + (made.image_raw - self.raw).abs().mean()
        if self.see is not None and self.seen is not None and self.inverter is not None:
            standard = self.inverter.standard
            loss = loss + FEATURES * (standard(self.see(made.image)) - standard(self.seen)).abs().mean()
        return loss

    @torch.no_grad()
    def psnr(self, x: Tensor, camera: Tensor) -> float:
        ws = self.ws(x)
        return self.psnr_of(self.generator.synthesize_planes(ws), ws, camera)

    @torch.no_grad()
    def psnr_of(self, planes: Tensor, ws: Tensor, camera: Tensor) -> float:
        """Return the peak signal-to-noise ratio of the render in dB."""
        error = F.mse_loss(as_saved(self.generator.render(planes, camera, w=ws).image), self.photo)
        return round(10 * math.log10(4 / max(float(error), 1e-10)), 2)


@torch.no_grad()
def space_of(generator: TriPlaneGenerator) -> WSpace:
    """Return coordinates in which the w of random latents have unit variance."""
    c, device, draw = generator.config, next(generator.parameters()).device, torch.Generator().manual_seed(0)
    z = torch.randn(SAMPLES, c.z_dim, generator=draw).to(device)
    w = generator.map(z, c.around([0.0]).to(device).expand(SAMPLES, -1))[:, 0]
    return WSpace(c.w_dim).to(device).fit(w)
