"""DreamPortrait turns a text prompt into a 3D portrait, with a text-conditioned EG3D generator.

from dreamportrait import DreamPortraitPipeline

pipe = DreamPortraitPipeline.from_pretrained("mini")
pipe("a woman with red hair", num_views=5).save_sheet("portrait.png")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DreamPortraitPipeline", "StylePipeline", "__version__"]

if TYPE_CHECKING:
    from dreamportrait.pipeline import DreamPortraitPipeline, StylePipeline


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, because importing PyTorch takes seconds."""
    if name in ("DreamPortraitPipeline", "StylePipeline"):
        from dreamportrait import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
