"""EG3D: the tri-plane generator and the dual discriminator, with the parameter names of the released weights."""

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.convert import convert_eg3d
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.folder import load_discriminator, load_eg3d_config, load_generator, save_generator
from dreamportrait.eg3d.official import discriminator_from_official, generator_from_official
from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator

__all__ = [
    "DiscriminatorConfig",
    "DualDiscriminator",
    "GeneratorConfig",
    "Rendering",
    "TriPlaneGenerator",
    "convert_eg3d",
    "discriminator_from_official",
    "generator_from_official",
    "load_discriminator",
    "load_eg3d_config",
    "load_generator",
    "save_generator",
]
