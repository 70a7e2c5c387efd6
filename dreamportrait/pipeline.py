"""The pipeline under the import path that users have: `from dreamportrait import DreamPortraitPipeline` is the same."""

from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

__all__ = ["DreamPortraitPipeline"]
