"""Which pictures train, and which only measure: official lists where a data set has them, else by a hash.

Without a list, the SHA-256 of a picture's name decides: 90 % train, 5 % validation, 5 % test. The split of a picture
does not depend on the other pictures, so adding some moves none.
"""

import hashlib

from dreamportrait.core.errors import DataError, SnapshotError, brief
from dreamportrait.weights.pickle_reader import Budget, PickleReader, Vocabulary

_UP_TO = {"train": 0.9, "validation": 0.95, "test": 1.0}
_INSTRUCTIONS = 10_000_000  # of a pickled list


def split_by_name(name: str) -> str:
    """Return the split of a picture by the hash of its name."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return next(split for split, limit in _UP_TO.items() if share < limit)


def read_list(name: str, content: bytes, where: str) -> list[str]:
    """Read a list of file names: a line each, or a pickled list of texts, which is read without executing it."""
    if name.lower().endswith((".pkl", ".pickle")):
        return _pickled_texts(content, where)
    try:
        return [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8: {error}") from None


def _pickled_texts(content: bytes, where: str) -> list[str]:
    try:
        found = PickleReader(memoryview(content), Vocabulary(), Budget(_INSTRUCTIONS)).load()
    except SnapshotError as error:
        raise DataError(f"{where} is not read: {error}. Write the names to a .txt file, one a line") from None
    if not isinstance(found, list | tuple) or not all(isinstance(text, str) for text in found):
        raise DataError(f"{where} holds {brief(found, 60)}, no list of file names; write them to a .txt file")
    return list(found)
