"""Names of data sets, checked without reading the data or importing heavy modules.

miniworld:test            faces of the miniature world that are never used for training; also miniworld:combinations
/path/to/folder or .zip   a data set in the format of data/folder.py
"""

from pathlib import Path

from dreamportrait.core.errors import DataError

WORLD = "miniworld:"
FACES = {"test": 2000, "combinations": 1000}  # smallest number of faces that is rendered, whatever count is needed


def is_world(source: str) -> bool:
    """Return whether a data set is a split of the miniature world."""
    return source.startswith(WORLD)


def check_source(source: str) -> None:
    """Raise DataError unless `source` names a data set. The data set is not read."""
    if is_world(source):
        if (split := source.removeprefix(WORLD)) not in FACES:
            known = ", ".join(WORLD + name for name in FACES)
            raise DataError(f"data set {source}: no split {split!r}; must be one of {known}, or a folder or zip file")
    elif not Path(source).exists():
        raise DataError(
            f"data set {source} is not there; name a folder, a zip file, {WORLD}test or {WORLD}combinations"
        )
