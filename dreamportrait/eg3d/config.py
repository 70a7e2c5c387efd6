"""The configuration of a tri-plane generator, stored as JSON next to its weights."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dreamportrait.eg3d.superresolution import SPECS, SuperResolutionSpec
from dreamportrait.geometry.cameras import orbit
from eg3d_ops._checks import check_int
from eg3d_ops.planes import FORMER_NAMES, PLANE_AXES, PlaneAxes

# Larger numbers are mistakes, and building or running such networks takes minutes.
MOST_LAYERS, MOST_PIXELS = 64, 8192
MOST = {"mapping_layers": MOST_LAYERS, "render_resolution": 2048, "num_coarse": 1024, "num_fine": 1024}
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class GeneratorConfig:
    """Settings of a tri-plane generator. The defaults are those of the released FFHQ 512 model."""

    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    mapping_layers: int = 2
    # Width of the mapping's hidden layers. None = w_dim, as in every official network. Older folders lack this setting.
    mapping_width: int | None = field(default=None, metadata={"later": True})
    # Camera labels are multiplied by this before the mapping. The official code reads a missing value as 0.
    camera_scale: float = 1.0
    camera_conditioning: bool = True  # False: the mapping gets zeros instead of the camera

    plane_axes: Literal["official", "xy_yz_zx", "fixed"] = "official"  # fixed: the former name of xy_yz_zx
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None

    decoder_hidden: int = 64
    decoder_lr_multiplier: float = 1.0
    render_resolution: int = 128
    num_coarse: int = 48
    num_fine: int = 48
    ray_start: float | Literal["auto"] = 2.25
    ray_end: float | Literal["auto"] = 3.3
    box_warp: float = 1.0
    disparity: bool = False
    white_back: bool = False

    superresolution: SuperResolutionSpec = SPECS["8XDC"]
    sr_noise: Literal["none", "const", "random"] = "none"
    sr_antialias: bool = True
    # If the first block of super-resolution neither resizes nor upsamples, the official code adds its colours to the
    # raw image in place. The raw image that it returns contains them, and its discriminators were trained on that.
    raw_includes_first_block: bool = True

    # Precision of super-resolution and of the backbone's highest resolutions. Everything else is float32.
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    num_low_precision: int = 0  # number of these resolutions of the backbone
    # True: super-resolution was trained in half precision. It runs in `precision`; its activations are always clamped.
    sr_low_precision: bool = True

    # Position of the training cameras, which frontal views and orbits use.
    camera_radius: float = 2.7
    camera_pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plane_axes", FORMER_NAMES.get(self.plane_axes, self.plane_axes))
        powers = {"plane_resolution": self.plane_resolution, "image_resolution": self.image_resolution}
        for name, value in powers.items():
            if not 4 <= value <= MOST_PIXELS or value & (value - 1):
                raise ValueError(f"{name}={value}: must be a power of two from 4 to {MOST_PIXELS}")
        if self.plane_axes not in PLANE_AXES:
            raise ValueError(f"plane_axes={self.plane_axes!r}: must be one of {', '.join(PLANE_AXES)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: must be one of {', '.join(PRECISIONS)}")
        counts = (
            "z_dim",
            "w_dim",
            "mapping_layers",
            "channel_base",
            "channel_max",
            "decoder_hidden",
            "render_resolution",
        )
        for name in counts:
            check_int(name, getattr(self, name), 1)
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name)}: at most {most}")
        if self.mapping_width is not None:
            check_int("mapping_width", self.mapping_width, 1)
        if self.plane_channels < 3:
            raise ValueError(f"plane_channels={self.plane_channels}: at least 3, the first three are the raw image")

    @property
    def axes(self) -> PlaneAxes:
        return PLANE_AXES[self.plane_axes]

    @property
    def num_planes(self) -> int:
        return len(self.axes)

    @property
    def image_resolution(self) -> int:
        return self.superresolution.resolutions[1]

    @property
    def low_precision_dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    @property
    def sr_dtype(self) -> torch.dtype:
        return self.low_precision_dtype if self.sr_low_precision else torch.float32

    @property
    def sr_clamp(self) -> float | None:
        return 256.0 if self.sr_low_precision else None

    def around(self, yaw: Sequence[float], pitch: float = 0.0) -> Tensor:  # [V, 25]
        """Return cameras at these angles (see `orbit`), as far from the head as the training cameras were."""
        return orbit(yaw, pitch, self.camera_radius, self.camera_pivot)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GeneratorConfig":
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown generator settings {unknown}; known are {sorted(cls.__dataclass_fields__)}")
        values = dict(values)
        if isinstance(spec := values.get("superresolution"), dict):
            pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in spec.items()}
            values["superresolution"] = SuperResolutionSpec(**pairs)
        if "camera_pivot" in values:
            values["camera_pivot"] = tuple(values["camera_pivot"])
        return cls(**values)
