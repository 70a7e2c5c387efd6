"""Import path of the pipeline for users. `from dreamportrait import DreamPortraitPipeline` gives the same class."""

from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

__all__ = ["DreamPortraitPipeline"]
