"""DreamPortrait: a sentence becomes a 3D portrait, by an EG3D generator that listens to text.

from dreamportrait import DreamPortraitPipeline

pipe = DreamPortraitPipeline.from_pretrained("mini")
pipe("a woman with red hair", num_views=5).save_sheet("portrait.png")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DreamPortraitPipeline", "__version__"]

if TYPE_CHECKING:
    from dreamportrait.pipeline import DreamPortraitPipeline


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: PyTorch takes seconds to load."""
    if name == "DreamPortraitPipeline":
        from dreamportrait.pipeline import DreamPortraitPipeline

        return DreamPortraitPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
