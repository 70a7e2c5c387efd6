"""One training step on the meta device: its peak memory and its arithmetic, without a GPU and without weights.

The step is that of training, DreamPortraitModule.training_step, with both regularisers due. Attention is counted as the
fused kernels of a GPU compute it: without the matrix of all pairs. The optimisers rest, because their memory follows
from the number of weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dreamportrait.core.config import Stage
from dreamportrait.core.tensor_memory import TensorMemory
from dreamportrait.data.dataset import Batch, Conditions, Words
from dreamportrait.geometry.cameras import orbit
from dreamportrait.guidance.guides import ClipGuide, DiffusionGuide, Guide
from dreamportrait.guidance.stable_diffusion import UNET_PRECISION, VAE_PRECISION, StableDiffusion
from dreamportrait.systems.dreamportrait.balance import GAN, GUIDANCE
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.cost.outline import Outline
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import TextFeatures
from eg3d_ops import backend, set_backend

PROMPT_LENGTH, CAPTION = 77, 40  # tokens that Stable Diffusion reads; of a long caption
STEPS = 1000  # of the noise schedule


class Step(NamedTuple):
    """Costs of one step of one process."""

    batch: int  # pictures at a time
    peaks: dict[str, int]  # bytes beyond weights, optimisers and average, by optimiser
    flops: float


class _Attention(torch.autograd.Function):
    """Attention with the memory of a fused kernel: inputs and output are kept, pairs are not."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors)


class _Fused(TorchFunctionMode):
    """Replace attention by _Attention, and count its arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = [*args, *(kwargs or {}).values()][:3] if len(args) < 3 else args[:3]
        pairs = q.shape[:-1].numel() * k.shape[-2]
        backward = 2.5 if torch.is_grad_enabled() and q.requires_grad else 0  # as the fused kernels recompute
        self.flops += int(2 * pairs * (q.shape[-1] + v.shape[-1]) * (1 + backward))
        return _Attention.apply(q, k, v)


class _Arithmetic(TorchDispatchMode):
    """Counts the arithmetic of convolutions and matrix products by PyTorch's formulas.

    Its own counter follows modules by hooks, which a gradient of a gradient (R1) does not allow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


class _Meta(DreamPortraitModule):
    """A training module that computes shapes alone and notes the memory of its parts."""

    memory: TensorMemory
    peaks: dict[str, int]
    trainer = property(lambda self: SimpleNamespace(world_size=1, global_rank=0))

    def update(self, name: str) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0), self.memory.peak)
        for p in self.parameters():
            p.grad = None
        self.memory.restart()


class Rehearsal:
    """Steps of a configuration on the meta device."""

    def __init__(self, config: Config, made: Outline) -> None:
        self.config, self.made = config, made
        self.guide = _guide(config, made)

    def step(self, guided: bool, batch: int, regularised: bool) -> Step:
        """Return the costs of a step with `batch` pictures at a time. regularised: density and R1 are due."""
        config = _one_step(self.config, guided, batch, regularised)
        module = _Meta(self.made.portrait.train(), self.made.critic.train(), config, self.guide if guided else None)
        module.balance.add({GAN: 1.0, GUIDANCE: 1.0})  # its measurement would read values
        module.images, module.peaks, module.memory = batch, {}, TensorMemory()
        given, flops, fused = _batch(self.made, batch), _Arithmetic(), _Fused()
        with _compiled_shapes(), torch.device("meta"), fused, flops, module.memory:
            module.training_step(given, 0)
        return Step(batch, module.peaks, float(flops.total + fused.flops))


def _one_step(config: Config, guided: bool, batch: int, regularised: bool) -> Config:
    """Return a configuration whose second step is the one to look at: nothing else happens in it."""
    stage = Stage(name="step", images=2 * batch, guidance=guided)
    loss = {"density_every": 1, "r1_every": 1, "blur_start": 0.0, "balance_every_images": 0}
    if not regularised:
        loss |= {"density_weight": 0.0, "r1_gamma": 0.0}
    changes: dict[str, Any] = {
        "data": config.data.model_copy(update={"batch": batch}),
        "stages": (stage,),
        "loss": config.loss.model_copy(update=loss),
    }
    if not guided:
        changes["guidance"] = config.guidance.model_copy(update={"kind": "none"})
    return config.model_copy(update=changes)


def _guide(config: Config, made: Outline) -> Guide | None:
    """Return the guidance loss on the meta device. None = no stage is guided."""
    g = config.guidance
    if not config.needs_guidance:
        return None
    if g.kind == "dmd":
        raise ValueError(
            "guidance.kind=dmd: the passes of its fake score are not estimated; estimate --set guidance.kind=sds, and "
            "add fake.updates passes of the UNet, forward and backward"
        )
    if made.unet is None or made.vae is None:
        if made.clip is None:
            raise ValueError(f"text.clip={config.text.clip} is unknown here, so the guidance cannot be estimated")
        return ClipGuide(_MetaScorer(made.clip.eval(), _no_tokens), g)
    precision, width = g.precision or config.trainer.precision, made.unet.config["cross_attention_dim"]
    prior = StableDiffusion(
        nn.Module.to(made.unet, UNET_PRECISION[precision]),
        nn.Module.to(made.vae, VAE_PRECISION[precision]),
        torch.empty(STEPS, device="meta"),
        "epsilon",
        lambda prompts: torch.empty(len(prompts), PROMPT_LENGTH, width, device="meta"),
        checkpoint=g.checkpoint,
    )
    return DiffusionGuide(prior, g)


class _MetaScorer(ClipScorer):
    """A CLIP on the meta device. Where a prompt ends is a value, so each one takes all places."""

    def text_features(self, prompts: list[str]) -> Tensor:  # -> [N, C]
        tokens = torch.zeros(len(prompts), self.tower.context_length, dtype=torch.long, device="meta")
        return self.tower.project(self.tower.layers(tokens)[-1][:, -1])


def _no_tokens(*_: object, **__: object) -> None:
    raise NotImplementedError("nothing is read on the meta device")


def _batch(made: Outline, count: int) -> Batch:
    c, width = made.portrait.config, made.portrait.conditioning.text_width
    camera = orbit([0.0] * count, 0.0, c.camera_radius, c.camera_pivot).to("meta")
    words = torch.empty(count, CAPTION, width, device="meta")
    text = TextFeatures(words, words[:, -1], torch.ones(count, CAPTION, dtype=torch.bool, device="meta"))
    said = Conditions(camera, [Words(i, 0, "") for i in range(count)], text)
    pixels = torch.empty(count, 3, c.image_resolution, c.image_resolution, dtype=torch.uint8, device="meta")
    return Batch(pixels, said, said)


@contextmanager
def _compiled_shapes() -> Iterator[None]:
    """Let operations on the meta device have the shapes of the compiled ones, which a GPU would run."""
    before = backend()
    set_backend("build")
    try:
        yield
    finally:
        set_backend(before)


@torch.no_grad()
def forward_flops(made: Outline) -> tuple[float, float]:
    """Return the arithmetic of CLIP's picture tower for one picture, and of drawing one picture without text."""
    assert made.clip is not None
    visual: Any = made.clip.visual
    generator = made.portrait.generator
    c = generator.config
    camera = orbit([0.0], 0.0, c.camera_radius, c.camera_pivot).to("meta")
    found = []
    for draws in (False, True):
        flops, fused = _Arithmetic(), _Fused()
        with _compiled_shapes(), torch.device("meta"), fused, flops:
            if draws:
                w = generator.map(torch.empty(1, c.z_dim), camera)
                generator.render(generator.synthesize_planes(w), camera, w=w)
            else:
                size = visual.image_size
                side = size[0] if isinstance(size, tuple | list) else size
                visual(torch.empty(1, 3, side, side))
        found.append(float(flops.total + fused.flops))
    return found[0], found[1]
