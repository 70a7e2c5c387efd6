"""The methods: each makes one head from one prompt.

one-pass   the text-to-3D generator, as in everyday use
sds        Stable-DreamFusion on our renderer: planes and decoder from noise, by score distillation
sjc        the same head by Score Jacobian Chaining
sds-w      w of the pretrained generator by score distillation: the same loss, in a space where all heads are faces
clip-w     w of the pretrained generator by CLIP, on augmented copies of its pictures
lifting    a picture by the diffusion model, inverted into the generator: w, then the backbone (pivotal tuning)

Every step of an optimisation sees the head from another camera of the data set.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from dreamportrait.baselines.config import Baselines, Distilled, FromNothing, Guided, Lifted, Moved
from dreamportrait.baselines.field import Field, opacity_entropy
from dreamportrait.baselines.names import CLIP_W, LIFTING, METHODS, ONE_PASS, SDS, SDS_W, SJC
from dreamportrait.baselines.tools import Tools
from dreamportrait.core.config import Guidance
from dreamportrait.eg3d.planes import Planes
from dreamportrait.geometry.images import antialiased, as_saved
from dreamportrait.geometry.views import Heads
from dreamportrait.guidance.guides import DiffusionGuide, Guide, clip_loss
from dreamportrait.guidance.sampling import sample
from dreamportrait.systems.dreamportrait.photo import invert
from dreamportrait.training.loop import minimise

ZOOM, SHIFT, TINT = 0.05, 0.05, 0.05  # of augmented copies: largest changes of size, position and colour
Report = Callable[[int], object]


def make_head(
    method: str,
    tools: Tools,
    config: Baselines,
    prompt: str,
    seed: int,
    number: int,
    report: Report = lambda done: None,
) -> Heads:
    """Make the head of a prompt. number: of the prompt; it decides the latent, together with the seed."""
    torch.manual_seed(seed * 1_000_003 + number)
    if method == ONE_PASS:
        return one_pass(tools, prompt, tools.latent(seed, number))
    if method == SDS:
        return from_nothing(tools, prompt, config.sds, distillation(tools, "sds", config.sds), report)
    if method == SJC:
        return from_nothing(tools, prompt, config.sjc, distillation(tools, "sjc", config.sjc), report)
    if method == SDS_W:
        return moved(tools, prompt, config.sds_w, tools.own_x(seed, number), report)
    if method == CLIP_W:
        return clip_guided(tools, prompt, config.clip_w, tools.own_x(seed, number), report)
    if method == LIFTING:
        return lifted(tools, prompt, config.lifting, seed * 1_000_003 + number, report)
    raise ValueError(f"method {method!r}: must be one of {', '.join(METHODS)}")


@torch.no_grad()
def one_pass(tools: Tools, prompt: str, z: Tensor) -> Heads:
    pipe = tools.pipe
    return pipe.generator.portray(z, pipe.encode_prompt(prompt))


def distillation(tools: Tools, kind: str, s: Distilled) -> DiffusionGuide:
    """Return the loss of score distillation with a baseline's settings."""
    given = {"kind": kind, "scale": s.scale, "t_min": s.t_min, "t_max": s.t_max}
    return DiffusionGuide(
        tools.prior, Guidance.model_validate(given | {"weight": s.weight, "rescale": s.rescale, "views": False})
    )


def from_nothing(tools: Tools, prompt: str, s: FromNothing, guide: Guide, report: Report) -> Field:
    """Optimise planes and decoder that begin as noise."""
    field = Field(tools.generator.config).to(tools.device)

    def loss() -> Tensor:
        camera = tools.camera()
        view = field.view(camera)
        flat = s.smooth * field.roughness() + s.opaque * opacity_entropy(view.weights)
        return guide(view.image, [prompt], camera) + flat

    minimise(loss, torch.optim.Adam(field.parameters(), s.rate), s.rate, s.steps, report)
    return field.requires_grad_(False)


def moved(tools: Tools, prompt: str, s: Moved, start: Tensor, report: Report) -> Planes:
    """Optimise w by score distillation."""
    guide = distillation(tools, "sds", s)
    return optimised_w(
        tools, lambda images, camera: guide(images, [prompt], camera), start, s.leash, s.rate, s.steps, report
    )


def clip_guided(tools: Tools, prompt: str, s: Guided, start: Tensor, report: Report) -> Planes:
    """Optimise w by the similarity of augmented pictures with the prompt."""

    def loss(images: Tensor, camera: Tensor) -> Tensor:
        return clip_loss(tools.scorer, augmented(images, s.copies), [prompt] * s.copies)

    return optimised_w(tools, loss, start, s.leash, s.rate, s.steps, report)


def optimised_w(
    tools: Tools,
    loss: Callable[[Tensor, Tensor], Tensor],  # pictures [1, 3, R, R], camera [1, 25] -> []
    start: Tensor,  # [1, w_dim] coordinates
    leash: float,
    rate: float,
    steps: int,
    report: Report,
) -> Planes:
    """Change the w of the pretrained generator. The leash keeps it near the start: far from it, faces break."""
    generator, x = tools.generator, start.clone().requires_grad_(True)

    def ws() -> Tensor:  # [1, num_ws, w_dim]
        return tools.space.leave(x)[:, None].expand(-1, generator.num_ws, -1)

    def whole() -> Tensor:
        w, camera = ws(), tools.camera()
        images = generator.render(generator.synthesize_planes(w), camera, w=w).image
        return loss(images, camera) + leash * (x - start).square().mean()

    minimise(whole, torch.optim.Adam([x], rate), rate, steps, report)
    with torch.no_grad():
        found = ws()
        return Planes(generator, generator.synthesize_planes(found), found)


def lifted(tools: Tools, prompt: str, s: Lifted, seed: int, report: Report) -> Heads:
    """Draw a picture with the diffusion model and invert it."""
    pipe = tools.pipe
    picture, size = draw_picture(tools, prompt, s, seed), pipe.generator.config.image_resolution
    if picture.shape[-1] != size:
        picture = antialiased(picture, size)
    found = invert(
        pipe,
        as_saved(picture),
        tools.see,
        None,  # whether the picture is strange is not asked
        camera=None,
        steps=s.steps,
        tuning_steps=s.tuning_steps,
        cameras=tools.front,
        progress={"disable": True},
    )
    report(s.steps + s.tuning_steps)
    return found.portrait.head


def draw_picture(tools: Tools, prompt: str, s: Lifted, seed: int) -> Tensor:  # [1, 3, R, R] in -1 .. 1
    prior = tools.prior
    words, null = (prior.embed([text]).to(tools.device) for text in (prompt, ""))
    vae = cast(AutoencoderKL, prior.vae)  # load_tools names no small encoder
    given = prior.unet, vae, tools.scheduler, words, null
    return sample(*given, guidance_scale=s.scale, steps=s.sampling_steps, seed=seed)


def augmented(images: Tensor, copies: int) -> Tensor:  # [1, 3, R, R] -> [copies, 3, R, R]
    """Return copies of a picture of other size, position and colour, so that CLIP cannot be fooled pixel by pixel."""
    change = 2 * torch.rand(copies, 6) - 1
    zoom, shift = 1 + ZOOM * change[:, 0], SHIFT * change[:, 1:3]
    move = torch.zeros(copies, 2, 3)
    move[:, 0, 0] = move[:, 1, 1] = zoom
    move[:, :, 2] = shift
    grid = F.affine_grid(move, [copies, *images.shape[1:]], align_corners=False).to(images)
    whole = F.grid_sample(images.expand(copies, -1, -1, -1), grid, padding_mode="border", align_corners=False)
    return whole + TINT * change[:, 3:, None, None].to(images)
