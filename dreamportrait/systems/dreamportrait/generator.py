"""A text-conditioned tri-plane generator: a pretrained one, with a mapper for the prompt and adapters for its words.

    G = PortraitGenerator.equip(generator, ConditioningConfig(text_width=1024))
    ws = G.map(z, camera, text)
    planes = G.synthesize_planes(ws, text)
    views = [G.render(planes, camera, w=ws) for camera in cameras]

Without text, it computes the same as the generator it was made from. Before training, it does so with any text, unless
`plain_mapper` is set.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.synthesis import Between, Noise
from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.systems.dreamportrait.adapter import GatedCrossAttention
from dreamportrait.systems.dreamportrait.conditioning import ConditioningConfig
from dreamportrait.systems.dreamportrait.mapper import PriorMapper, SemanticsMapper, make_mapper
from dreamportrait.text.encoder import PromptEncoder, TextFeatures
from eg3d_ops._checks import check_shape, check_tensor

FLOW_SCALE = 2.0  # classifier-free guidance of a text prior's flow
MAX_STRENGTH = 1.5  # of the text; by eye, faces of the shipped model fall apart from about 1.75 on


class PortraitGenerator(nn.Module):
    def __init__(self, generator: TriPlaneGenerator, conditioning: ConditioningConfig) -> None:
        super().__init__()
        self.conditioning = c = conditioning
        self.generator = generator
        self.mapper = make_mapper(c, self.config.w_dim)
        synthesis = generator.backbone.synthesis
        self.adapters = nn.ModuleDict()  # by resolution
        for resolution, block in zip(synthesis.resolutions, synthesis.blocks(), strict=True):
            if resolution in c.sites(synthesis.resolutions):
                self.adapters[str(resolution)] = GatedCrossAttention(
                    block.conv1.weight.shape[0],
                    c.text_width,
                    axes=self.config.axes,
                    token_dim=c.token_dim,
                    heads=c.heads,
                    pooling=c.pooling,
                    gated=c.gate,
                )

    @classmethod
    def equip(cls, generator: TriPlaneGenerator, conditioning: ConditioningConfig) -> "PortraitGenerator":
        """Add text conditioning to a generator, on its device and in its mode. The generator itself is not copied."""
        device = next(generator.parameters()).device
        portrait = cls(generator, conditioning).to(device).train(generator.training)
        if isinstance(portrait.mapper, SemanticsMapper) and not portrait.mapper.plain:
            portrait.mapper.spread.copy_(w_covariance_sqrt(generator))
        return portrait

    @property
    def config(self) -> GeneratorConfig:
        return self.generator.config

    @property
    def num_ws(self) -> int:
        return self.generator.num_ws

    def listeners(self) -> nn.ModuleDict:
        """Return the mapper and the adapters (no copies), i.e. all modules that are not the pretrained generator's."""
        mapper = {} if self.mapper is None else {"mapper": self.mapper}
        return nn.ModuleDict({**mapper, "adapters": self.adapters})

    def map(
        self,
        z: Tensor,  # [N, z_dim]
        camera: Tensor,  # [N, 25], conditions the identity
        text: TextFeatures | None,
        truncation_psi: float = 1.0,
        update_average: bool = False,  # in training: update the average w with this batch
        steps: int | None = None,  # of the text prior's flow, with its guidance. None = one pass
        scale: float = FLOW_SCALE,
        strength: float = 1.0,  # of the text: 0 = the latent's own w, 1 = as trained, more = extrapolated
    ) -> Tensor:  # [N, num_ws, w_dim]
        """Map latents and text to ws.

        Truncation moves w towards the average face before the text acts, so that it does not weaken the text.
        """
        ws = self.generator.map(z, camera, truncation_psi, update_average=update_average)
        if text is None or self.mapper is None:
            return ws
        self._check_text(text, len(ws))
        if steps is None:
            w = self.mapper(ws[:, 0], text.eot)
        elif isinstance(self.mapper, PriorMapper):
            w = self.mapper.follow(ws[:, 0], text.eot, steps, scale)
        else:
            raise ValueError(f"steps={steps}: this model holds no text prior, so it has no flow; leave steps out")
        if strength != 1:
            w = ws[:, 0].lerp(w, strength)
        return w[:, None].expand(-1, self.num_ws, -1)

    def synthesize_planes(
        self, ws: Tensor, text: TextFeatures | None, noise: Noise = "const", strength: float = 1.0
    ) -> Tensor:
        """Return planes [N, 3, C, H, W] for ws [N, num_ws, w_dim] from map()."""
        return self.generator.synthesize_planes(ws, noise, self._between(text, len(ws), strength))

    def render(
        self,
        planes: Tensor,  # [N, 3, C, H, W]
        camera: Tensor,  # [N, 25]
        *,
        w: Tensor,  # [N, num_ws, w_dim], the ws of map()
        resolution: int | None = None,
        draws: Literal["midpoint", "random"] | tuple[Tensor, Tensor] = "midpoint",
        impl: str = "auto",
    ) -> Rendering:
        return self.generator.render(planes, camera, w=w, resolution=resolution, draws=draws, impl=impl)

    def forward(
        self,
        z: Tensor,
        camera: Tensor,
        text: TextFeatures | None,
        conditioning_camera: Tensor | None = None,  # [N, 25], conditions the identity. None = camera
        truncation_psi: float = 1.0,
        noise: Noise = "const",
        resolution: int | None = None,
        draws: Literal["midpoint", "random"] | tuple[Tensor, Tensor] = "midpoint",
    ) -> Rendering:
        """Render one view of each latent and prompt."""
        ws = self.map(z, camera if conditioning_camera is None else conditioning_camera, text, truncation_psi)
        planes = self.synthesize_planes(ws, text, noise)
        return self.render(planes, camera, w=ws, resolution=resolution, draws=draws)

    def portray(
        self,
        z: Tensor,  # [N, z_dim]
        text: TextFeatures | None,
        truncation_psi: float = 1.0,
        steps: int | None = None,
        scale: float = FLOW_SCALE,
        strength: float = 1.0,
    ) -> Planes:
        """Make a head from each latent and prompt. The frontal camera conditions the identity for all views."""
        device = next(self.parameters()).device
        features, front = text and text.to(device), self.config.around([0.0]).to(device).expand(len(z), -1)
        ws = self.map(z.to(device), front, features, truncation_psi, steps=steps, scale=scale, strength=strength)
        return Planes(self.generator, self.synthesize_planes(ws, features, strength=strength), ws)

    def moved(
        self, z: Tensor, camera: Tensor, text: TextFeatures, prior: PriorMapper | None = None
    ) -> Tensor:  # [N, w_dim]
        """Return the offset that the text adds to w, in standard deviations, beyond what `prior` adds.

        The mapper must not be plain.
        """
        assert self.mapper is not None
        w = self.generator.map(z, camera)[:, 0]
        offset = self.mapper.offset(w, text.eot)
        return offset if prior is None else offset - prior.offset(w, text.eot)

    def _between(self, text: TextFeatures | None, batch: int, strength: float) -> Between | None:
        if text is None or not len(self.adapters) or strength == 0:
            return None
        self._check_text(text, batch)

        def adapt(resolution: int, x: Tensor) -> Tensor:
            if str(resolution) not in self.adapters:
                return x
            adapted: Tensor = self.adapters[str(resolution)](x, text.words, text.mask)
            return adapted if strength == 1 else x.lerp(adapted, strength)

        return adapt

    def _check_text(self, text: TextFeatures, batch: int) -> None:
        width, length = self.conditioning.text_width, text.words.shape[1]
        if text.eot.shape[-1] != width:
            raise ValueError(
                f"text features have {text.eot.shape[-1]} channels, but this generator was equipped for {width}; "
                "encode the prompts with the text encoder it was trained with"
            )
        why = "one prompt for each sample of the batch"
        check_shape("text.eot", check_tensor("text.eot", text.eot), [batch, width], why)
        check_shape("text.words", check_tensor("text.words", text.words), [batch, length, width], why)
        if text.mask.dtype != torch.bool:
            raise TypeError(f"text.mask must be bool, True for words, got {text.mask.dtype}")
        check_shape("text.mask", text.mask, [batch, length], "as text.words")


@torch.no_grad()
def w_covariance_sqrt(generator: TriPlaneGenerator, count: int = 10_000) -> Tensor:  # [w_dim, w_dim]
    """Return the square root of the covariance of w under the frontal camera.

    It turns independent unit steps into steps of w.
    """
    c = generator.config
    device = next(generator.parameters()).device
    z = torch.randn(count, c.z_dim, generator=torch.Generator().manual_seed(0)).to(device)
    front = c.around([0.0]).to(device)
    w = generator.map(z, front.expand(count, -1))[:, 0]
    variances, directions = torch.linalg.eigh(torch.cov(w.double().T))
    return (directions * variances.clamp(min=0).sqrt() @ directions.T).to(w.dtype)


def in_precision(generator: PortraitGenerator, precision: str) -> PortraitGenerator:
    """Return a network with the same tensors that computes the layers that tolerate it in another precision."""
    lower: Any = {"precision": precision}
    with torch.device("meta"):  # allocates no storage; the tensors of `generator` are assigned below
        made = PortraitGenerator(TriPlaneGenerator(replace(generator.config, **lower)), generator.conditioning)
    made.load_state_dict(generator.state_dict(), strict=True, assign=True)
    return made.train(generator.training).requires_grad_(False)


@dataclass(frozen=True)
class TextTo3D:
    """A generator and the text encoder it was trained with. It makes heads from prompts and latents."""

    generator: PortraitGenerator
    encoder: PromptEncoder

    @property
    def config(self) -> GeneratorConfig:
        return self.generator.config

    def portray(self, prompts: list[str], latents: Tensor, truncation: float = 1.0) -> Planes:
        return self.generator.portray(latents, self.encoder.encode(prompts), truncation)

    def portray_without_text(self, latents: Tensor, truncation: float = 1.0) -> Planes:
        """Make the heads that the same latents give without any text: those of the generator alone."""
        return self.generator.portray(latents, None, truncation)
