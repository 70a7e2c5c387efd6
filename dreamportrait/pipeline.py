"""Import path of the pipelines for users. `from dreamportrait import DreamPortraitPipeline` gives the same class."""

from typing import TYPE_CHECKING, Any

from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

if TYPE_CHECKING:
    from dreamportrait.systems.freestyle.pipeline import StylePipeline

__all__ = ["DreamPortraitPipeline", "StylePipeline"]


def __getattr__(name: str) -> Any:
    """Import StylePipeline when it is first used, because it needs diffusers, which portraits of prompts do not."""
    if name == "StylePipeline":
        from dreamportrait.systems.freestyle.pipeline import StylePipeline

        return StylePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
