"""Weights on disk: folders of our own, and official EG3D snapshots converted to them without executing anything."""

from dreamportrait.weights.convert import convert_eg3d
from dreamportrait.weights.errors import SnapshotError, UnsafePickleError, WeightsError
from dreamportrait.weights.store import load_config, load_discriminator, load_generator, save_generator

__all__ = [
    "SnapshotError",
    "UnsafePickleError",
    "WeightsError",
    "convert_eg3d",
    "load_config",
    "load_discriminator",
    "load_generator",
    "save_generator",
]
