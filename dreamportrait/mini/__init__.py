"""Small models of the miniature world, how they are trained, and the demo. Imports everything, imported by nothing."""

from typing import TYPE_CHECKING, Any

__all__ = ["TriPlaneGan", "from_pretrained"]

if TYPE_CHECKING:
    from dreamportrait.mini.models import TriPlaneGan, from_pretrained


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that the commands in this package start at once."""
    if name in __all__:
        from dreamportrait.mini import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
