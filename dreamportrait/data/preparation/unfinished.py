"""The hidden folder beside OUT that holds what is not finished, so that the same command continues a stopped run."""

import errno
import json
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreamportrait.core.errors import DataError
from dreamportrait.core.files import write_text
from dreamportrait.core.locks import alone
from dreamportrait.data.index import PREPARATION


def unfinished(out: Path) -> Path:
    return out.with_name(f".{out.name}.unfinished")


def begin(work: Path, about: dict[str, Any]) -> None:
    """Make the hidden folder, or raise DataError unless the one that is there was made from the same `identity`."""
    path = work / PREPARATION
    if work.exists() and (not path.is_file() or json.loads(path.read_text())["identity"] != about["identity"]):
        raise DataError(
            f"{work} holds an unfinished preparation of other data or settings; run that command again, or remove the "
            "folder"
        )
    if not path.is_file():
        write_text(path, json.dumps(about, indent=2) + "\n")


@contextmanager
def undisturbed(out: Path) -> Iterator[None]:
    """Raise DataError if another process makes `out`, if the disk is full, or if a worker was killed."""
    path = out.with_name(f".{out.name}.lock")
    with alone(path, DataError(f"another process prepares {out}; wait for it, or name another folder")):
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DataError(
                f"the disk of {out.parent} is full; free some space, then the same command continues"
            ) from None
        except BrokenProcessPool:
            raise DataError(
                "a worker was killed, perhaps for lack of memory; the same command continues, with fewer --workers"
            ) from None
        finally:
            path.unlink(missing_ok=True)
