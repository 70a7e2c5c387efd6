"""The sizes of an image-to-triplane network, stored as JSON next to its weights."""

from dataclasses import dataclass
from typing import Any, Literal

from dreamportrait.eg3d.config import MOST_PIXELS, GeneratorConfig
from eg3d_ops._checks import check_int

Kind = Literal["full", "position"]
KINDS = ("full", "position")
Around = Literal["mean", "guess"]
AROUNDS = ("mean", "guess")
COARSEST = 4  # resolution of the encoder's last features, which see the whole picture


@dataclass(frozen=True)
class I2TConfig:
    """Sizes. `fitting` fills in those that follow from a generator; the defaults are those for 512 pixels."""

    image_resolution: int  # of the frontal pictures
    num_planes: int
    plane_channels: int
    plane_resolution: int
    w_dim: int
    code_size: int = 32  # k: height and width of the style code
    code_channels: int = 256  # c
    channel_base: int = 32768  # channels of the modulation layer at resolution r: min(channel_base // r, channel_max)
    channel_max: int = 512
    # What gamma and beta of eq. 3 are for each position. full: one number for each channel. position: one for all
    # channels, the literal reading of the paper.
    modulation: Kind = "full"
    # The planes that the network's differences are added to. mean: of many heads. guess: those that the generator makes
    # of the network's guess of w, see generator.py.
    around: Around = "mean"

    def __post_init__(self) -> None:
        for name in ("num_planes", "plane_channels", "w_dim", "code_channels", "channel_base", "channel_max"):
            check_int(name, getattr(self, name), 1)
        powers = {"image_resolution": 2 * COARSEST, "plane_resolution": COARSEST, "code_size": 1}
        for name, least in powers.items():
            value = check_int(name, getattr(self, name), least)
            if value > MOST_PIXELS or value & (value - 1):
                raise ValueError(f"{name}={value}: must be a power of two from {least} to {MOST_PIXELS}")
        if self.code_size >= self.image_resolution:
            raise ValueError(
                f"code_size={self.code_size}: must be less than image_resolution={self.image_resolution}, which the "
                "encoder halves until it is reached"
            )
        if self.channel_base < self.plane_resolution:
            raise ValueError(f"channel_base={self.channel_base}: at least plane_resolution={self.plane_resolution}")
        if self.code_channels % 4:
            raise ValueError(f"code_channels={self.code_channels}: must be a multiple of 4")
        if self.modulation not in KINDS:
            raise ValueError(f"modulation={self.modulation!r}: must be one of {', '.join(KINDS)}")
        if self.around not in AROUNDS:
            raise ValueError(f"around={self.around!r}: must be one of {', '.join(AROUNDS)}")

    @classmethod
    def fitting(cls, generator: GeneratorConfig, **changes: Any) -> "I2TConfig":
        """Return the sizes for the planes and the pictures of a generator."""
        own = {
            "image_resolution": generator.image_resolution,
            "num_planes": generator.num_planes,
            "plane_channels": generator.plane_channels,
            "plane_resolution": generator.plane_resolution,
            "w_dim": generator.w_dim,
            "channel_base": generator.channel_base,
            "channel_max": generator.channel_max,
        }
        return cls(**own | changes)

    @property
    def resolutions(self) -> list[int]:
        """Return the resolutions of the modulation layers: 4, 8, ... up to that of the planes."""
        return [2**i for i in range(2, self.plane_resolution.bit_length())]

    def channels(self, resolution: int) -> int:
        """Return the channels of the modulation layer at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    def check_fits(self, generator: GeneratorConfig) -> None:
        """Raise ValueError unless the network makes planes for this generator from its pictures."""
        wanted = I2TConfig.fitting(generator, code_size=1)
        names = ("image_resolution", "num_planes", "plane_channels", "plane_resolution", "w_dim")
        pairs = {name: (getattr(self, name), getattr(wanted, name)) for name in names}
        if wrong := [f"{name}={own}, not {other}" for name, (own, other) in pairs.items() if own != other]:
            raise ValueError(f"the network is of another generator: {', '.join(wrong)}; choose the one it was made for")
