"""Names of data sets, checked without reading the data or importing heavy modules.

miniworld:validation      faces of the miniature world that no training sees, for every choice of a setting
miniworld:test            other faces, measured once for each model that is shipped
miniworld:combinations    faces with pairs of attributes that no training sees together
styled:validation         plain and styled heads of the miniature world from all sides; also styled:test and
                          styled:combinations, for the same uses
/path/to/folder or .zip   a data set in the format of data/folder.py
/path/to/prepared         the training split of a folder that `dreamportrait data prepare` wrote
/path/to/prepared:test    another split of it: train, validation, test or all
"""

from pathlib import Path

from dreamportrait.core.errors import DataError
from dreamportrait.data.index import SPLITS

WORLD, STYLED = "miniworld:", "styled:"
# By split: the smallest number of faces that is rendered, whatever count is needed.
FACES = {"validation": 2000, "test": 2000, "combinations": 1000}
ALL = "all"  # splits of a prepared data set together
KNOWN = ", ".join(kind + split for kind in (WORLD, STYLED) for split in FACES)


def is_world(source: str) -> bool:
    """Return whether a data set is a split of the plain faces of the miniature world."""
    return source.startswith(WORLD)


def is_styled(source: str) -> bool:
    """Return whether a data set is a split of the miniature world's styled heads."""
    return source.startswith(STYLED)


def check_source(source: str) -> None:
    """Raise DataError unless `source` names a data set. The data set is not read."""
    if is_world(source) or is_styled(source):
        if (split := source.partition(":")[2]) not in FACES:
            raise DataError(f"data set {source}: no split {split!r}; must be one of {KNOWN}, or a folder or zip file")
    elif not split_source(source)[0].exists():
        raise DataError(f"data set {source} is not there; name a folder, a zip file, or one of {KNOWN}")


def split_source(source: str | Path) -> tuple[Path, str | None]:
    """Return the path and the split of a data set on disk. The split is None if the name gives none."""
    whole, (name, _, split) = Path(source), str(source).rpartition(":")
    return (Path(name), split) if name and split in (*SPLITS, ALL) and not whole.exists() else (whole, None)
