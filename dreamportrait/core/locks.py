"""Locks on folders, so that two processes do not write to the same one.

The system frees a lock when its process ends, however it does.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

_log = logging.getLogger(__name__)


def take(path: Path, taken: Exception) -> "BaseFileLock":
    """Lock a file, whose folder is made if it is missing. Raise `taken` if another process has the lock."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise taken from None
    except NotImplementedError:  # some network file systems have no locks
        _log.warning("%s: this file system has no locks; do not start a second process there", path.parent)
    return lock


@contextmanager
def alone(path: Path, taken: Exception) -> Iterator[None]:
    """Hold a lock inside the `with` block. Raise `taken` if another process has it."""
    lock = take(path, taken)
    try:
        yield
    finally:
        lock.release()
