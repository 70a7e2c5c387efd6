"""Small models of the miniature world, how they are trained, and the demo. Imports everything, imported by nothing."""

from dreamportrait.mini.models import TriPlaneGan, from_pretrained

__all__ = ["TriPlaneGan", "from_pretrained"]
