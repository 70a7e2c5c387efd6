"""Stand-ins for the methods that the paper compares with, and for the rows of its ablation.

    dreamfusion      tri-planes are optimised by score distillation of the style's words (Poole et al. 2022)
    gan_inversion    w is optimised until the generator draws the edited front ("3DGAN-Inv")
    hfgi3d           that w, then the generator's backbone is tuned to views into which the edited front is warped by
                     its depth where it is visible (Xie et al. 2023)
    PlaneLayers      no I2T: two modulation layers behind the frozen generator's planes, tuned as H is

They are short versions of these methods on our generator and renderer, and none of them claims the quality of the
original. Their decoder and super-resolution are those of the generator, frozen.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.core.config import Guidance
from dreamportrait.eg3d.layers import Conv
from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.rays import points_at, project
from dreamportrait.guidance.guides import DiffusionGuide
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.prior.space import WSpace
from dreamportrait.systems.freestyle.evaluation import limits
from dreamportrait.systems.freestyle.modulation import Modulation, modulated
from dreamportrait.systems.freestyle.network import Prediction
from dreamportrait.systems.freestyle.perceptual import Perceptual
from dreamportrait.systems.freestyle.pretraining import draw_cameras, draw_ws
from dreamportrait.systems.freestyle.tuning import reconstruction_loss
from dreamportrait.training.loop import minimise
from eg3d_ops import bias_act

PLANE_RATE, W_RATE, BACKBONE_RATE = 0.05, 0.05, 1e-3  # Adam's: in deviations of planes and of w, of weights
DISTILLED = Guidance(kind="sds", scale=10.0, rescale=0.5)
SAMPLES = 2000  # w that show how w varies
Report = Callable[[int], object]


def ignored(done: int) -> None:
    """Report to nobody."""


# ----- DreamFusion ----------------------------------------------------------------------------------------


def dreamfusion(
    generator: TriPlaneGenerator,
    start: Tensor,  # [P, C, H, W] mean planes
    spread: Tensor,  # [P, C, 1, 1] of planes
    prior: StableDiffusion,
    words: str,
    *,
    yaw: float,
    pitch: float,
    steps: int = 400,
    seed: int = 0,
    report: Report = ignored,
) -> Planes:
    """Return a head whose planes are optimised by score distillation. Each step sees it from another camera."""
    torch.manual_seed(seed)
    guide, device = DiffusionGuide(prior, DISTILLED), start.device
    change = torch.zeros_like(start, requires_grad=True)
    ws = average_ws(generator)

    def loss() -> Tensor:
        camera = draw_cameras(generator, 1, yaw, pitch).to(device)
        planes = (start + spread * change)[None]
        return guide(generator.render(planes, camera, w=ws, draws="random").image, [words], camera)

    minimise(loss, torch.optim.Adam([change], PLANE_RATE, (0.9, 0.99)), PLANE_RATE, steps, report)
    return Planes(generator, (start + spread * change.detach())[None], ws)


@torch.no_grad()
def average_ws(generator: TriPlaneGenerator) -> Tensor:  # [1, num_ws, w_dim]
    return generator.backbone.mapping.w_avg[None, None].expand(1, generator.num_ws, -1)


# ----- Inversion ------------------------------------------------------------------------------------------


def gan_inversion(
    generator: TriPlaneGenerator,
    front: Tensor,  # [1, 3, R, R] edited
    *,
    steps: int = 200,
    seed: int = 0,
    perceptual: Perceptual | None = None,
    report: Report = ignored,
) -> Planes:
    """Return the generator's own head that looks most like a front."""
    torch.manual_seed(seed)
    space = WSpace(generator.config.w_dim).to(front.device).fit(draw_ws(generator, SAMPLES, 1.0)[:, 0])
    x = torch.zeros(1, generator.config.w_dim, device=front.device, requires_grad=True)
    camera = generator.config.around([0.0]).to(front)

    def ws() -> Tensor:  # [1, num_ws, w_dim]
        return space.leave(x)[:, None].expand(-1, generator.num_ws, -1)

    def loss() -> Tensor:
        seen = generator.render(generator.synthesize_planes(ws(), noise="const"), camera, w=ws()).image
        return reconstruction_loss(seen, front, perceptual)

    minimise(loss, torch.optim.Adam([x], W_RATE), W_RATE, steps, report)
    with torch.no_grad():
        found = ws()
        return Planes(generator, generator.synthesize_planes(found, noise="const"), found)


def hfgi3d(
    generator: TriPlaneGenerator,
    front: Tensor,  # [1, 3, R, R] edited
    *,
    yaw: float,
    pitch: float,
    steps: int = 200,
    tuning_steps: int = 150,
    views: int = 8,
    seed: int = 0,
    perceptual: Perceptual | None = None,
    report: Report = ignored,
) -> Planes:
    """Return a head by inversion, then tuning of the backbone to the front and to warped views of it."""
    pivot = gan_inversion(generator, front, steps=steps, seed=seed, perceptual=perceptual, report=report)
    around = draw_cameras(generator, views, yaw, pitch).to(front)
    cameras = torch.cat([generator.config.around([0.0]).to(front), around])
    targets = torch.cat([front, *(warped(pivot, front, camera[None]) for camera in around)])
    tuned = copy.deepcopy(generator)
    weights = list(tuned.backbone.synthesis.requires_grad_(True).parameters())

    def loss() -> Tensor:
        k = int(torch.randint(len(cameras), ()))
        planes = tuned.synthesize_planes(pivot.ws, noise="const")
        seen = generator.render(planes, cameras[k, None], w=pivot.ws).image
        return reconstruction_loss(seen, targets[k, None], perceptual)

    minimise(loss, torch.optim.Adam(weights, BACKBONE_RATE), BACKBONE_RATE, tuning_steps, report)
    with torch.no_grad():
        return Planes(generator, tuned.synthesize_planes(pivot.ws, noise="const"), pivot.ws)


@torch.no_grad()
def warped(head: Planes, front: Tensor, camera: Tensor) -> Tensor:  # [1, 3, R, R], [1, 25] -> [1, 3, R, R]
    """Return a view of a head with the colours of its front where the front shows the same point."""
    generator, size = head.generator, front.shape[-1]
    forward = generator.config.around([0.0]).to(camera)
    view, seen = head.view(camera), head.view(forward)
    depth, front_depth = (
        F.interpolate(each.depth, (size, size), mode="bilinear", align_corners=False) for each in (view, seen)
    )
    place, away = project(points_at(depth, camera), forward)
    grid, away = place.unflatten(1, (size, size)) * 2 - 1, away.reshape(depth.shape)
    colors, surface = (
        F.grid_sample(each, grid, padding_mode="border", align_corners=False) for each in (front, front_depth)
    )
    nearer_than, tolerance = limits(generator.config)
    visible = (depth < nearer_than) & (grid.abs().amax(-1)[:, None] < 1) & (away - surface < tolerance)
    return torch.where(visible, colors, view.image.clamp(-1, 1))


# ----- No I2T ---------------------------------------------------------------------------------------------


class PlaneLayers(nn.Module):
    """Two modulation layers that change the planes of one head of the frozen generator. They start as the identity."""

    planes: Tensor  # [1, P, C, H, W]
    w: Tensor  # [1, w_dim]

    def __init__(self, head: Planes, code_channels: int = 16, code_size: int = 16) -> None:
        super().__init__()
        self.register_buffer("planes", head.planes)
        self.register_buffer("w", head.ws[:, 0])
        channels, size = head.planes.shape[1] * head.planes.shape[2], head.planes.shape[-1]
        self.code = nn.Parameter(torch.randn(1, code_channels, code_size, code_size))
        self.convs = nn.ModuleList([Conv(channels, channels, 3) for _ in range(2)])
        self.modulations = nn.ModuleList([Modulation(code_channels, channels, size, "full") for _ in range(2)])
        self.out = Conv(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, front: Tensor) -> Prediction:  # the front is not read: one head has one set of planes
        x = self.planes.flatten(1, 2)
        for conv, modulation in zip(self.convs, self.modulations, strict=True):
            x = bias_act(modulated(conv(x), *modulation(self.code)), None, act="lrelu")
        return Prediction(self.planes + self.out(x).reshape(self.planes.shape), self.w, self.code)
