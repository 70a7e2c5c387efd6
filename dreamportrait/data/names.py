"""Names of data sets, checked without reading the data or importing heavy modules.

miniworld:validation      faces of the miniature world that no training sees, for every choice of a setting
miniworld:test            other faces, measured once for each model that is shipped
miniworld:combinations    faces with pairs of attributes that no training sees together
/path/to/folder or .zip   a data set in the format of data/folder.py
"""

from pathlib import Path

from dreamportrait.core.errors import DataError

WORLD = "miniworld:"
# By split: the smallest number of faces that is rendered, whatever count is needed.
FACES = {"validation": 2000, "test": 2000, "combinations": 1000}
KNOWN = ", ".join(WORLD + split for split in FACES)


def is_world(source: str) -> bool:
    """Return whether a data set is a split of the miniature world."""
    return source.startswith(WORLD)


def check_source(source: str) -> None:
    """Raise DataError unless `source` names a data set. The data set is not read."""
    if is_world(source):
        if (split := source.removeprefix(WORLD)) not in FACES:
            raise DataError(f"data set {source}: no split {split!r}; must be one of {KNOWN}, or a folder or zip file")
    elif not Path(source).exists():
        raise DataError(f"data set {source} is not there; name a folder, a zip file, or one of {KNOWN}")
