"""The choice of implementation: a prebuilt library, a library built at first use, or the PyTorch twin.

Nothing is compiled or loaded at import. The first use on a device type looks for a library in this order:
prebuilt inside the package, then built into the cache (now, if it is not there); otherwise the twin runs. The
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
import functools
import logging
import os
import threading
from pathlib import Path

import torch

from . import _build, _cache
from ._library import constant_when_traced

logger = logging.getLogger("eg3d_ops")

MODES = ("auto", "prebuilt", "build", "reference")
IMPLS = ("auto", "compiled", "reference")
CPU_ISAS = tuple(_build.CPU_ISAS)  # ascending; the library takes an index into it

_mode: str | None = None  # None = the environment decides
_loaded: dict[str, Path] = {}  # device type -> library
_kinds: dict[str, str] = {}  # device type -> "prebuilt" or "build"
_failed: dict[tuple[str, str], str] = {}  # (mode, device type) -> why there is no library
_loading = threading.Lock()  # the first use may come from several threads at once


def set_backend(mode: str) -> None:
    """Force an implementation for this process: "auto", "prebuilt", "build" or "reference".

    The next use tries again what failed before. Code that torch.compile has traced keeps its choice.
    """
    global _mode
    _mode = _checked(mode, "mode")
    _failed.clear()


def backend() -> str:
    """Return the mode in force."""
    return _mode if _mode is not None else _checked(os.environ.get("EG3D_OPS", "auto"), "environment variable EG3D_OPS")


def loaded_libraries() -> dict[str, Path]:
    """Return the library of the compiled ops for each device type; empty before the first use."""
    return dict(_loaded)


def use_compiled(impl: str, device: torch.device) -> bool:
    """Return whether a call runs compiled code. Raise if compiled code is demanded but unavailable."""
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r}: must be one of {', '.join(IMPLS)}")
    return impl != "reference" and _resolve(impl, device.type)


@constant_when_traced
def _resolve(impl: str, device_type: str) -> bool:
    mode = backend()
    if mode == "reference":
        if impl == "auto":
            _say_once(logging.INFO, f"{device_type}: PyTorch implementations, as the backend 'reference' demands")
            return False
        mode = "auto"
    if device_type == "meta":  # only shapes: nothing to load, and both implementations know them
        return impl == "compiled" or mode != "auto"
    with _loading:
        if device_type in _loaded and mode in ("auto", _kinds[device_type]):
            return True
        if (mode, device_type) not in _failed:
            try:
                _load(device_type, mode)
                return True
            except _build.BuildError as error:
                _failed[mode, device_type] = str(error)
        cause = _failed[mode, device_type]
    if mode == impl == "auto":
        _say_once(logging.WARNING, f"{device_type}: using the PyTorch implementations, which are slower. {cause}")
        return False
    raise RuntimeError(
        f"compiled eg3d_ops for {device_type!r} demanded (impl={impl!r}, backend={mode!r}) but not available. {cause}\n"
        "Remedy: fix the cause, or set EG3D_OPS=reference to use the PyTorch implementations."
    )


@functools.cache
def _say_once(level: int, message: str) -> None:
    logger.log(level, message)


# ----- Loading --------------------------------------------------------------------------------------------


def _load(device_type: str, mode: str) -> None:
    """Load the first library that works; raise with the cause of every failure."""
    if device_type not in ("cpu", "cuda"):
        raise _build.BuildError(f"No compiled ops exist for device type {device_type!r}, only for cpu and cuda.")
    if device_type in _loaded:
        raise _build.BuildError(f"This process uses {_loaded[device_type]} already; choose before the first use.")
    causes = []
    for kind, find in (("prebuilt", _prebuilt), ("build", _built)):
        if mode in ("auto", kind):
            try:
                path = find(device_type)
                torch.ops.load_library(str(path))
                _try(device_type)
            except (_build.BuildError, OSError) as error:
                causes.append(f"{kind}: {error}")
                continue
            if device_type == "cpu":
                _apply_isa_from_env(path)
            _loaded[device_type], _kinds[device_type] = path, kind
            logger.info("%s: compiled ops from %s", device_type, path)
            return
    raise _build.BuildError("Tried:\n  " + "\n  ".join(causes))


def _try(device_type: str) -> None:
    """Raise BuildError unless a kernel of the loaded library can be launched.

    A library for a newer driver or for other devices loads without an error, and then every launch fails. CUDA reports
    that at the launch, so this does not wait for the GPU.
    """
    if device_type != "cuda":
        return  # the processor's instruction set was chosen when the library was loaded
    try:
        launch_smallest(device_type)
    except RuntimeError as error:
        raise _build.BuildError(f"it loads, but its kernels do not run here: {error}") from error


def launch_smallest(device_type: str) -> None:
    """Launch bias_act on one number."""
    torch.ops.eg3d_ops.bias_act(torch.zeros(1, device=device_type), None, 0, 0, 0.0, 1.0, -1.0)


def _prebuilt(device_type: str) -> Path:
    """Return the library installed with the package, if it was built from these sources and fits the devices."""
    folder = _build.PACKAGE / "lib"
    stem = _build.library_name(device_type).removesuffix(_build.SUFFIX)
    for path in sorted(folder.glob(f"{stem}*{_build.SUFFIX}")):
        archs = path.name.removesuffix(_build.SUFFIX).removeprefix(stem).lstrip("-").split(".")
        if device_type == "cpu" or all(_covers(archs, device) for device in _device_archs()):
            return path
    others = sorted(path.name for path in folder.glob(f"eg3d_ops_{device_type}-*"))
    found = f"found only {', '.join(others)}, made from other sources or for other devices" if others else "it has none"
    raise _build.BuildError(f"no {stem}*{_build.SUFFIX} in {folder}: {found}; see docs/eg3d_ops.md")


def _built(device_type: str) -> Path:
    return _cache.built(device_type, _device_archs() if device_type == "cuda" else None)


def _device_archs() -> list[str]:
    """Return the compute capabilities of the visible devices, e.g. ["80", "90"]."""
    found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return [f"{major}{minor}" for major, minor in sorted(found)]


def _covers(archs: list[str], device: str) -> bool:
    """Return whether code for `archs` runs on a device.

    Binary code runs on devices of its major version with the same or a later minor version. The newest architecture
    also carries PTX for all later devices.
    """
    return any(a[:-1] == device[:-1] and int(a) <= int(device) for a in archs) or int(archs[-1]) <= int(device)


# ----- The instruction set of the CPU kernels -------------------------------------------------------------


def cpu_isa() -> str:
    """Return the instruction set that the CPU kernels use: "avx512", "avx2" or "portable"."""
    return CPU_ISAS[_request_isa(_cpu_library(), -1)]


def set_cpu_isa(isa: str) -> None:
    """Override the run-time choice of the instruction set, for tests and comparisons."""
    _apply_isa(_cpu_library(), isa, "isa")


def _cpu_library() -> Path:
    if "cpu" not in _loaded:
        use_compiled("compiled", torch.device("cpu"))
    return _loaded["cpu"]


def _apply_isa_from_env(library: Path) -> None:
    if isa := os.environ.get("EG3D_OPS_CPU"):
        _apply_isa(library, isa, "environment variable EG3D_OPS_CPU")


def _apply_isa(library: Path, isa: str, what: str) -> None:
    if isa not in CPU_ISAS:
        raise ValueError(f"{what}={isa!r}: must be one of {', '.join(CPU_ISAS)}")
    if _request_isa(library, CPU_ISAS.index(isa)) < 0:
        raise ValueError(f"{what}={isa!r}: this processor or this build does not have it")


def _request_isa(library: Path, request: int) -> int:
    return int(ctypes.CDLL(str(library)).eg3d_ops_cpu_isa(request))


def _checked(mode: str, what: str) -> str:
    if mode not in MODES:
        raise ValueError(f"{what}={mode!r}: must be one of {', '.join(MODES)}")
    return mode
