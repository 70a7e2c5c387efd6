"""Build the compiled libraries at first use and keep them in the user's cache.

One process builds a library while all others wait for it. The lock is the operating system's, so a killed
process cannot leave it locked.
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
# All ranks of a launch are expected to start within this time. An older failure notice is from an earlier launch.
_LAUNCH_SPREAD = 60.0  # seconds


def built(target: str, archs: list[str] | None) -> Path:
    """Return the path of the library in the cache. Build it now if it is missing."""
    folder = cache_folder()
    path = folder / _build.library_name(target, archs)
    if path.exists():
        return path
    timeout = lock_timeout()
    _make_writable(folder)  # on every rank, so that no rank waits for a local rank 0 that cannot write
    notice = folder / f"{path.name}.{platform.node()}.failed"  # local rank 0 reports a failed build here
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
    """Return the cache folder: EG3D_OPS_CACHE or ~/.cache/eg3d_ops, with a subfolder per kind of machine.

    The subfolder is needed because machines of different kinds may share a home folder.
    """
    try:
        root = Path(os.environ.get("EG3D_OPS_CACHE") or Path.home() / ".cache" / "eg3d_ops")
    except RuntimeError as error:  # the user has no home folder
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
    import filelock  # imported here, because a prebuilt library does not need it

    lock = path.with_name(path.name + ".lock")
    try:
        with filelock.FileLock(lock, timeout=timeout):
            if path.exists():  # another process has built it in the meantime
                return
            for leftover in path.parent.glob(_build.scratch_prefix(path) + "*"):  # left by a killed build
                shutil.rmtree(leftover, ignore_errors=True)
            # nvcc takes minutes, so a user must know; a C++ compiler takes seconds.
            level = logging.WARNING if target == "cuda" else logging.INFO
            took = ", which takes minutes" if target == "cuda" else ""
            logger.log(level, "%s: compiling the ops, once on this machine%s", target, took)
            _build.build(target, path.parent, archs, say=lambda row: logger.log(level, "%s: %s", target, row))
    except filelock.Timeout:
        raise _build.BuildError(
            f"another process held {lock} for {timeout:g} s; wait for it, or raise EG3D_OPS_LOCK_TIMEOUT"
        ) from None
    except NotImplementedError as error:
        raise _build.BuildError(f"{path.parent} has no file locks; set EG3D_OPS_CACHE to a local folder") from error


def _wait_for(path: Path, notice: Path, timeout: float) -> Path:
    """Wait until local rank 0 has built the library, and return its path. Other local ranks never build.

    Raise BuildError if local rank 0 reports a failure or the time is up.
    """
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
    """Return the failure that local rank 0 of this launch reported, or None.

    The time is part of the text, because file times may come from a file server's clock.
    """
    try:
        when, _, message = notice.read_text(encoding="utf-8").partition("\n")
        return message if float(when) > _STARTED - _LAUNCH_SPREAD else None
    except (FileNotFoundError, ValueError):  # ValueError: the notice is half written
        return None
