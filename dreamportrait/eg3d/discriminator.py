"""The dual discriminator, which gets the final image together with the resized raw image, and the camera."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.eg3d.config import MOST_LAYERS, MOST_PIXELS, PRECISIONS
from dreamportrait.eg3d.conv import minibatch_std
from dreamportrait.eg3d.layers import Conv, FullyConnected
from dreamportrait.eg3d.mapping import MappingNetwork
from dreamportrait.geometry.cameras import check_label
from eg3d_ops import setup_filter
from eg3d_ops._checks import check_shape, check_tensor


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Settings of a dual discriminator. The defaults are those of the released FFHQ 512 model."""

    c_dim: int = 25
    image_resolution: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = 256
    mapping_layers: int = 8
    camera_dim: int | None = None  # size of the camera's embedding. None = number of channels at 4 x 4
    group_size: int | None = 4  # samples per group of `minibatch_std`. None = the whole batch
    std_channels: int = 1
    camera_noise: float = 0.0  # noise on labels, in standard deviations of the batch
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    num_low_precision: int = 4  # number of highest resolutions computed in `precision`

    def __post_init__(self) -> None:
        r = self.image_resolution
        if not 8 <= r <= MOST_PIXELS or r & (r - 1):
            raise ValueError(f"image_resolution={r}: must be a power of two from 8 to {MOST_PIXELS}")
        if self.mapping_layers > MOST_LAYERS:
            raise ValueError(f"mapping_layers={self.mapping_layers}: at most {MOST_LAYERS}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: must be one of {', '.join(PRECISIONS)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution; the first one also reads the images."""

    resample_filter: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, img_channels: int, clamp: float | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        if img_channels > 0:
            self.fromrgb = Conv(img_channels, in_channels, 1, activation="lrelu", clamp=clamp)
        self.conv0 = Conv(in_channels, in_channels, 3, activation="lrelu", clamp=clamp)
        self.conv1 = Conv(in_channels, out_channels, 3, activation="lrelu", down=2, clamp=clamp)
        self.skip = Conv(in_channels, out_channels, 1, bias=False, down=2)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, R, R] -> [N, Co, R / 2, R / 2]
        x = x.to(self.dtype)
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        y = self.skip(x, gain=0.5**0.5)
        return y + self.conv1(self.conv0(x), gain=0.5**0.5)


class Epilogue(nn.Module):
    """Turns 4 x 4 features into one vector per image, always in float32."""

    def __init__(self, channels: int, out_features: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.group_size, self.std_channels = config.group_size, config.std_channels
        self.conv = Conv(channels + config.std_channels, channels, 3, activation="lrelu", clamp=config.conv_clamp)
        self.fc = FullyConnected(channels * 16, channels, activation="lrelu")
        self.out = FullyConnected(channels, out_features)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, 4, 4] -> [N, camera_dim]
        x = self.conv(minibatch_std(x.float(), self.group_size, self.std_channels))
        return self.out(self.fc(x.flatten(1)))


class DualDiscriminator(nn.Module):
    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = c = config
        self.resolutions = [c.image_resolution >> i for i in range(c.image_resolution.bit_length() - 3)]  # R .. 8
        channels = {r: min(c.channel_base // r, c.channel_max) for r in [*self.resolutions, 4]}
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        lowest = max(c.image_resolution >> max(c.num_low_precision - 1, 0), 8)
        for r in self.resolutions:
            low = c.num_low_precision > 0 and r >= lowest
            dtype = PRECISIONS[c.precision] if low else torch.float32
            images = 6 if r == c.image_resolution else 0
            block = DiscriminatorBlock(channels[r], channels[r // 2], images, c.conv_clamp, dtype)
            self.add_module(f"b{r}", block)
        camera_dim = c.camera_dim or channels[4]
        self.mapping = MappingNetwork(0, c.c_dim, camera_dim, c.mapping_layers, track_average=False)
        self.b4 = Epilogue(channels[4], camera_dim, c)

    def forward(self, image: Tensor, image_raw: Tensor, camera: Tensor) -> Tensor:
        """Return logits [N, 1] for image [N, 3, R, R], image_raw [N, 3, r, r] and camera [N, 25]."""
        check_label(camera, batch=len(image))
        return project(self.features(image, image_raw), self.embed(camera))

    def features(self, image: Tensor, image_raw: Tensor) -> Tensor:  # -> [N, camera_dim]
        """Return the features of the images. They do not depend on the camera."""
        size = self.config.image_resolution
        check_tensor("image", image, 4, "[N, 3, R, R]")
        check_shape("image", image, [len(image), 3, size, size], "[N, 3, R, R], R as configured")
        check_tensor("image_raw", image_raw, 4, "[N, 3, r, r]")
        check_shape("image_raw", image_raw, [len(image), 3, *image_raw.shape[2:]], "[N, 3, r, r], N as image")
        raw = F.interpolate(image_raw, (size, size), mode="bilinear", align_corners=False, antialias=True)
        x = torch.cat([image, raw], 1)  # [N, 6, R, R]
        for r in self.resolutions:
            x = self.get_submodule(f"b{r}")(x)
        features: Tensor = self.b4(x)
        return features

    def embed(self, camera: Tensor) -> Tensor:  # [N, 25] -> [N, camera_dim]
        embedded: Tensor = self.mapping(None, self._noisy(camera))
        return embedded

    def _noisy(self, camera: Tensor) -> Tensor:
        """Return labels with added noise. The official code adds it to the caller's tensor in place; this does not."""
        if self.config.camera_noise <= 0:
            return camera
        return camera + torch.randn_like(camera) * camera.std(0) * self.config.camera_noise


def project(features: Tensor, condition: Tensor) -> Tensor:  # [N, C], [N, C] -> logits [N, 1]
    return (features * condition).sum(1, keepdim=True) / condition.shape[1] ** 0.5
