"""What users name as a data set, checked by path alone, before anything heavy is imported.

miniworld:test            faces of the miniature world that no training saw; also miniworld:combinations
/path/to/folder or .zip   a data set as data/folder.py describes it
"""

from pathlib import Path

from dreamportrait.core.errors import DataError

WORLD = "miniworld:"
FACES = {"test": 2000, "combinations": 1000}  # rendered at once, whatever is asked for


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
