"""Which implementation runs: a prebuilt library, one built at first use, or the PyTorch twin.

Nothing is compiled or loaded at import. At the first use on a device type the library is looked for in
this order: prebuilt inside the package, built into the cache (now, if need be), else the twin runs. The
outcome is logged once. `EG3D_OPS` or `set_backend` force one of them:

    auto       the order above (default)
    prebuilt   only a library installed with the package; an error without one
    build      only a library built on this machine; an error where that fails
    reference  the PyTorch twins

A call's own `impl="compiled"` or `impl="reference"` wins over both.

    EG3D_OPS_CACHE         where libraries are built (default: ~/.cache/eg3d_ops)
    EG3D_OPS_LOCK_TIMEOUT  seconds to wait for another process's build (default: 600)
    EG3D_OPS_CPU           avx512, avx2 or portable: overrides the run-time choice
"""

import ctypes
import logging
import os
import platform
import time
from pathlib import Path

import torch

from . import _build

logger = logging.getLogger("eg3d_ops")

MODES = ("auto", "prebuilt", "build", "reference")
IMPLS = ("auto", "compiled", "reference")
CPU_ISAS = tuple(_build.CPU_ISAS)  # ascending; an index into it is what the library speaks

_mode: str | None = None  # None: the environment decides
_loaded: dict[str, Path] = {}  # device type -> library
_failed: dict[tuple[str, str], str] = {}  # (mode, device type) -> why there is no library


def set_backend(mode: str) -> None:
    """Forces an implementation for this process: "auto", "prebuilt", "build" or "reference"."""
    global _mode
    _mode = _checked(mode, "mode")


def backend() -> str:
    """The mode in force."""
    return _mode if _mode is not None else _checked(os.environ.get("EG3D_OPS", "auto"), "environment variable EG3D_OPS")


def loaded_libraries() -> dict[str, Path]:
    """Device type -> the library its compiled ops come from; empty before the first use."""
    return dict(_loaded)


def use_compiled(impl: str, device: torch.device) -> bool:
    """Whether a call runs compiled. Raises when compiled code is demanded and cannot be had."""
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r}: must be one of {', '.join(IMPLS)}")
    return impl != "reference" and _resolve(impl, device.type)


@torch.compiler.assume_constant_result
def _resolve(impl: str, device_type: str) -> bool:
    mode = backend()
    if mode == "reference":
        if impl == "auto":
            return False
        mode = "auto"
    if device_type in _loaded and (mode == "auto" or mode == _kind(_loaded[device_type])):
        return True
    if (mode, device_type) not in _failed:
        try:
            _load(device_type, mode)
            return True
        except (_build.BuildError, OSError) as error:
            _failed[mode, device_type] = str(error)
            if mode == impl == "auto":
                logger.warning("%s: using the PyTorch implementations, which are slower. %s", device_type, error)
    if mode == impl == "auto":
        return False
    raise RuntimeError(
        f"compiled eg3d_ops for {device_type!r} demanded (impl={impl!r}, backend={mode!r}) but not available: "
        f"{_failed[mode, device_type]}\nRemedy: mend the cause, or set EG3D_OPS=reference to use the PyTorch implementations."
    )


def _load(device_type: str, mode: str) -> None:
    if device_type not in ("cpu", "cuda"):
        raise _build.BuildError(f"no compiled ops exist for device type {device_type!r}, only for cpu and cuda")
    if device_type in _loaded:
        raise _build.BuildError(f"this process has already loaded {_loaded[device_type]}; set EG3D_OPS before the first use")
    path = None if mode == "build" else _prebuilt(device_type)
    if path is None:
        if mode == "prebuilt":
            raise _build.BuildError(f"no prebuilt library {_build.library_name(device_type)} in {_build.PACKAGE / 'lib'}")
        path = _built(device_type)
    torch.ops.load_library(str(path))
    _loaded[device_type] = path
    if device_type == "cpu" and (isa := os.environ.get("EG3D_OPS_CPU")):
        set_cpu_isa(isa)
    logger.info("%s: compiled ops from %s", device_type, path)


def _kind(path: Path) -> str:
    return "prebuilt" if path.parent == _build.PACKAGE / "lib" else "build"


def _prebuilt(device_type: str) -> Path | None:
    """The library installed with the package, if it was made from these sources and fits the device."""
    stem = _build.library_name(device_type).removesuffix(_build.SUFFIX)
    for path in sorted((_build.PACKAGE / "lib").glob(stem + "*" + _build.SUFFIX)):
        archs = path.name.removesuffix(_build.SUFFIX).removeprefix(stem).lstrip("-").split(".")
        if device_type == "cpu" or all(_covers(archs, device) for device in _device_archs()):
            return path
    return None


def _device_archs() -> list[str]:
    """Compute capabilities of the visible devices, e.g. ["80", "90"]."""
    found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return [f"{major}{minor}" for major, minor in sorted(found)]


def _covers(archs: list[str], device: str) -> bool:
    """Binary code runs on its own major version from its minor upwards; the newest carries PTX for all later."""
    return any(a[:-1] == device[:-1] and int(a) <= int(device) for a in archs) or int(archs[-1]) <= int(device)


def cache_folder() -> Path:
    root = os.environ.get("EG3D_OPS_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "eg3d_ops"


def _built(device_type: str) -> Path:
    """The library in the cache; built now if missing. One process builds, the others wait for it."""
    import filelock

    archs = _device_archs() if device_type == "cuda" else None
    folder = cache_folder() / f"{platform.system()}-{platform.machine()}".lower()
    path = folder / _build.library_name(device_type, archs)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    timeout = float(os.environ.get("EG3D_OPS_LOCK_TIMEOUT", "600"))
    # All local ranks of one launch share their parent, so rank 0 tells them of a failure under its number.
    failure = folder / f"{path.name}.{os.getppid()}.failed"
    if int(os.environ.get("LOCAL_RANK", "0")) != 0:
        return _wait_for(path, failure, timeout)
    failure.unlink(missing_ok=True)
    lock = folder / f"{path.name}.lock"  # held by the operating system: a killed process cannot leave it locked
    try:
        with filelock.FileLock(lock, timeout=timeout):
            if not path.exists():
                logger.info("%s: building the compiled ops (once, under a minute)", device_type)
                _build.build(device_type, folder, archs)
    except filelock.Timeout:
        raise _build.BuildError(f"another process held {lock} for {timeout:g} s; wait for it, or raise EG3D_OPS_LOCK_TIMEOUT") from None
    except _build.BuildError as error:
        if "LOCAL_RANK" in os.environ:
            failure.write_text(str(error))
        raise
    return path


def _wait_for(path: Path, failure: Path, timeout: float) -> Path:
    """Local ranks other than 0 never build: they wait for the library, or for news of its failure."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if path.exists():
            return path
        if failure.exists():
            raise _build.BuildError(f"local rank 0 could not build it: {failure.read_text()}")
        time.sleep(0.2)
    raise _build.BuildError(f"local rank 0 did not deliver {path} within {timeout:g} s; raise EG3D_OPS_LOCK_TIMEOUT")


def cpu_isa() -> str:
    """The instruction set the CPU kernels use: "avx512", "avx2" or "portable"."""
    return CPU_ISAS[_cpu_library().eg3d_ops_cpu_isa(-1)]


def set_cpu_isa(isa: str) -> None:
    """Overrides the run-time choice, for tests and comparisons."""
    if isa not in CPU_ISAS:
        raise ValueError(f"isa={isa!r}: must be one of {', '.join(CPU_ISAS)}")
    if _cpu_library().eg3d_ops_cpu_isa(CPU_ISAS.index(isa)) < 0:
        raise ValueError(f"isa={isa!r}: this processor or this build lacks it")


def _cpu_library() -> ctypes.CDLL:
    if "cpu" not in _loaded:
        use_compiled("compiled", torch.device("cpu"))
    return ctypes.CDLL(str(_loaded["cpu"]))


def _checked(mode: str, what: str) -> str:
    if mode not in MODES:
        raise ValueError(f"{what}={mode!r}: must be one of {', '.join(MODES)}")
    return mode
