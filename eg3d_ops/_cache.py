"""Libraries built at first use, kept in the user's cache. One process builds, all others wait for it.

The lock is the operating system's: a killed process cannot leave it locked.
"""

import logging
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

from . import _build

logger = logging.getLogger("eg3d_ops")

_STARTED = time.time()
# Local rank 0 starts with its fellows, give or take: an older failure notice is from an earlier launch.
_LAUNCH_SPREAD = 60.0  # seconds


def built(target: str, archs: list[str] | None) -> Path:
    """The library in the cache; built now if missing."""
    folder = cache_folder()
    path = folder / _build.library_name(target, archs)
    if path.exists():
        return path
    timeout = lock_timeout()
    _make_writable(folder)  # on every rank: none waits for one that cannot write
    notice = folder / f"{path.name}.{platform.node()}.failed"  # where local rank 0 tells the others
    if int(os.environ.get("LOCAL_RANK", "0")) != 0:
        return _wait_for(path, notice, timeout)
    notice.unlink(missing_ok=True)
    try:
        _build_locked(target, path, archs, timeout)
    except _build.BuildError as error:
        notice.write_text(f"{time.time()}\n{error}", encoding="utf-8")
        raise
    return path


def cache_folder() -> Path:
    """EG3D_OPS_CACHE or ~/.cache/eg3d_ops, with a folder per kind of machine: homes may be shared."""
    try:
        root = Path(os.environ.get("EG3D_OPS_CACHE") or Path.home() / ".cache" / "eg3d_ops")
    except RuntimeError as error:  # a user without a home
        raise _build.BuildError(f"{error}; set EG3D_OPS_CACHE to a folder for the compiled ops") from error
    return root.absolute() / f"{platform.system()}-{platform.machine()}".lower()


def lock_timeout() -> float:
    text = os.environ.get("EG3D_OPS_LOCK_TIMEOUT", "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"environment variable EG3D_OPS_LOCK_TIMEOUT={text!r}: must be a number of seconds, 0 or more")
    return seconds


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _build.BuildError(f"cannot write to {folder}: {error}; set EG3D_OPS_CACHE to another folder") from error


def _build_locked(target: str, path: Path, archs: list[str] | None, timeout: float) -> None:
    import filelock  # here, so that a prebuilt library needs it not

    lock = path.with_name(path.name + ".lock")
    try:
        with filelock.FileLock(lock, timeout=timeout):
            if path.exists():  # another process was faster
                return
            for leftover in path.parent.glob(_build.scratch_prefix(path) + "*"):  # of a killed build
                shutil.rmtree(leftover, ignore_errors=True)
            logger.info("%s: building the compiled ops (once)", target)
            _build.build(target, path.parent, archs)
    except filelock.Timeout:
        raise _build.BuildError(
            f"another process held {lock} for {timeout:g} s; wait for it, or raise EG3D_OPS_LOCK_TIMEOUT"
        ) from None
    except NotImplementedError as error:
        raise _build.BuildError(f"{path.parent} has no file locks; set EG3D_OPS_CACHE to a local folder") from error


def _wait_for(path: Path, notice: Path, timeout: float) -> Path:
    """Local ranks other than 0 never build: they wait for the library, or for news of its failure."""
    deadline = time.monotonic() + timeout
    while True:
        if path.exists():
            return path
        if message := _fresh_failure(notice):
            raise _build.BuildError(f"local rank 0 could not build it: {message}")
        if time.monotonic() >= deadline:
            raise _build.BuildError(
                f"local rank 0 did not deliver {path} within {timeout:g} s; raise EG3D_OPS_LOCK_TIMEOUT"
            )
        time.sleep(0.2)


def _fresh_failure(notice: Path) -> str | None:
    """What rank 0 of this launch reported. The time is in the text: file times may be a server's."""
    try:
        when, _, message = notice.read_text(encoding="utf-8").partition("\n")
        return message if float(when) > _STARTED - _LAUNCH_SPREAD else None
    except (FileNotFoundError, ValueError):  # ValueError: half written
        return None
