"""The tri-plane generator (EG3D): latent -> w -> three planes -> rays -> features -> image.

The steps are separate methods without hidden state, so that the backbone runs once for many views of one portrait:

    w = G.map(z, camera)
    planes = G.synthesize_planes(w)
    views = [G.render(planes, camera, w=w) for camera in cameras]
"""

from typing import Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.eg3d.mapping import MappingNetwork, truncate
from dreamportrait.eg3d.superresolution import SuperResolution
from dreamportrait.eg3d.synthesis import NOISE_MODES, Between, Noise, SynthesisNetwork
from dreamportrait.geometry.cameras import check_camera, check_label
from dreamportrait.geometry.rays import rays_from_label
from eg3d_ops import Decoder, RenderedRays, decode, render_rays, sample_planes
from eg3d_ops._checks import check_int, check_number, check_shape, check_tensor


class Rendering(NamedTuple):
    """One view of each of N heads."""

    image: Tensor  # [N, 3, R, R]  final
    image_raw: Tensor  # [N, 3, r, r]  as rendered, before super-resolution
    depth: Tensor  # [N, 1, r, r]  along the ray
    weights: Tensor  # [N, 1, r, r]  opacity


class DecoderNetwork(nn.Module):
    """The two layers that turn plane features into density and colour; the renderer runs them."""

    def __init__(self, in_features: int, hidden: int, out_features: int, lr_multiplier: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(in_features, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + out_features, lr_multiplier=lr_multiplier),
        )

    def weights(self) -> Decoder:
        first, second = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected) and isinstance(second, FullyConnected)
        return Decoder(*first.scaled(), *second.scaled())


class Backbone(nn.Module):
    """Mapping and synthesis network, with the parameter names of the released weights."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        c = config
        self.synthesis = SynthesisNetwork(
            w_dim=c.w_dim,
            resolution=c.plane_resolution,
            img_channels=c.num_planes * c.plane_channels,
            channel_base=c.channel_base,
            channel_max=c.channel_max,
            clamp=c.conv_clamp,
            low_precision=c.low_precision_dtype,
            num_low_precision=c.num_low_precision,
        )
        self.mapping = MappingNetwork(
            c.z_dim, c.c_dim, c.w_dim, c.mapping_layers, track_average=True, width=c.mapping_width
        )


class TriPlaneGenerator(nn.Module):
    dataset_label_std: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = c = config
        # Standard deviation of the training labels. It is the unit of conditioning noise.
        self.register_buffer("dataset_label_std", torch.zeros(c.c_dim))
        self.backbone = Backbone(c)
        self.superresolution = SuperResolution(
            c.superresolution,
            in_channels=c.plane_channels,
            w_dim=c.w_dim,
            clamp=c.sr_clamp,
            dtype=c.sr_dtype,
            noise=c.sr_noise,
            antialias=c.sr_antialias,
        )
        self.decoder = DecoderNetwork(c.plane_channels, c.decoder_hidden, c.plane_channels, c.decoder_lr_multiplier)
        self.register_load_state_dict_pre_hook(_tolerate_missing_label_std)

    @property
    def num_ws(self) -> int:
        return self.backbone.synthesis.num_ws

    def map(
        self,
        z: Tensor,  # [N, z_dim]
        camera: Tensor,  # [N, 25] the camera that conditions the identity
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,  # number of entries to truncate, from the first. None = all
        update_average: bool = False,  # for training: update the average with this batch
    ) -> Tensor:  # [N, num_ws, w_dim]
        c = self.config
        check_shape("z", check_tensor("z", z), [len(z), c.z_dim], "[N, z_dim]")
        check_label(camera, batch=len(z))
        check_number("truncation_psi", truncation_psi)
        if truncation_cutoff is not None:
            check_int("truncation_cutoff", truncation_cutoff, 0)
        mapping = self.backbone.mapping
        w = mapping(z, camera * c.camera_scale if c.camera_conditioning else torch.zeros_like(camera))
        if update_average:
            mapping.update_average(w)
        ws = w[:, None].expand(-1, self.num_ws, -1)
        return truncate(ws, mapping.w_avg, truncation_psi, truncation_cutoff)

    def synthesize_planes(self, w: Tensor, noise: Noise = "const", between: Between | None = None) -> Tensor:
        """Return planes [N, P, C, H, W] for w [N, num_ws, w_dim]. `between` may change features between blocks."""
        c = self.config
        check_shape("w", check_tensor("w", w), [len(w), self.num_ws, c.w_dim], "[N, num_ws, w_dim], from map()")
        if noise not in NOISE_MODES:
            raise ValueError(f"noise={noise!r}: must be one of {', '.join(NOISE_MODES)}")
        planes = self.backbone.synthesis(w, noise, between)
        return rearrange(planes, "n (planes c) h w -> n planes c h w", planes=c.num_planes)

    def render(
        self,
        planes: Tensor,  # [N, P, C, H, W]
        camera: Tensor,  # [N, 25]
        *,
        w: Tensor,  # [N, num_ws, w_dim] super-resolution is modulated by its last entry
        resolution: int | None = None,  # resolution of the rendered image. None = the config's
        draws: Literal["midpoint", "random"] | tuple[Tensor, Tensor] = "midpoint",
        impl: str = "auto",
    ) -> Rendering:
        c = self.config
        check_camera(camera, batch=len(planes))
        size = c.render_resolution if resolution is None else check_int("resolution", resolution, 1)
        rays = self.render_rays(planes, *rays_from_label(camera, size), draws, impl)
        features, depth, weights = (_as_image(part, size) for part in rays)
        raw = features[:, :3]
        with_first_block, image = self.superresolution(raw, features, w[:, -1])
        if c.raw_includes_first_block and with_first_block.shape == raw.shape:
            raw = with_first_block
        return Rendering(image, raw, depth, weights)

    def render_rays(
        self,
        planes: Tensor,  # [N, P, C, H, W]
        origins: Tensor,  # [N, M, 3]
        directions: Tensor,  # [N, M, 3]
        draws: Literal["midpoint", "random"] | tuple[Tensor, Tensor] = "midpoint",
        impl: str = "auto",
    ) -> RenderedRays:
        """Render features [N, M, C], depth and weights [N, M, 1] along rays, before super-resolution."""
        c = self.config
        return render_rays(
            planes,
            origins,
            directions,
            self.decoder.weights(),
            plane_axes=c.plane_axes,
            ray_start=c.ray_start,
            ray_end=c.ray_end,
            box_warp=c.box_warp,
            num_coarse=c.num_coarse,
            num_fine=c.num_fine,
            disparity=c.disparity,
            white_back=c.white_back,
            draws=draws,
            impl=impl,
        )

    def forward(
        self,
        z: Tensor,
        camera: Tensor,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
        resolution: int | None = None,
        draws: Literal["midpoint", "random"] | tuple[Tensor, Tensor] = "midpoint",
    ) -> Rendering:
        """Render one view of each latent, from the camera that also conditions it."""
        w = self.map(z, camera, truncation_psi, truncation_cutoff)
        return self.render(self.synthesize_planes(w, noise), camera, w=w, resolution=resolution, draws=draws)

    def sample_density_and_color(self, points: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Return density [N, M, 1] before activation and colour features [N, M, C], at points [N, M, 3] in the box."""
        c = self.config
        check_shape(
            "points", check_tensor("points", points), [len(planes), points.shape[1], 3], "[N, M, 3], N as planes"
        )
        return decode(sample_planes(planes, points, c.axes, c.box_warp), self.decoder.weights())


def _as_image(x: Tensor, size: int) -> Tensor:
    """Return [N, R * R, C] as a view [N, C, R, R] in channels-last layout."""
    return rearrange(x, "n (h w) c -> n c h w", h=size)


def _tolerate_missing_label_std(module, state, prefix, *rest) -> None:  # type: ignore[no-untyped-def]
    """Add dataset_label_std if it is missing: official training adds it, so untrained official networks lack it."""
    state.setdefault(prefix + "dataset_label_std", module.dataset_label_std)
