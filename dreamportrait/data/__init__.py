"""Data sets of images with cameras and captions."""

from dreamportrait.data.folder import DataError, ImageFolder, Item
from dreamportrait.data.writing import Sample, check_free, write_dataset

__all__ = ["DataError", "ImageFolder", "Item", "Sample", "check_free", "write_dataset"]
