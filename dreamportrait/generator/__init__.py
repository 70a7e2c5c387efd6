"""EG3D's networks: the tri-plane generator and the dual discriminator, under the names of the released weights."""

from dreamportrait.generator.config import GeneratorConfig
from dreamportrait.generator.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.generator.official import discriminator_from_official, generator_from_official
from dreamportrait.generator.triplane import Rendering, TriPlaneGenerator

__all__ = [
    "DiscriminatorConfig",
    "DualDiscriminator",
    "GeneratorConfig",
    "Rendering",
    "TriPlaneGenerator",
    "discriminator_from_official",
    "generator_from_official",
]
