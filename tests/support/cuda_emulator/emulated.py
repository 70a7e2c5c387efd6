"""Run the CUDA ops on the CPU, with the bindings, launchers and kernels of the real library.

They are registered as the CPU ops of a separate library, `torch.ops.eg3d_emulated`. This shows what the kernels
compute. It does not show what only a GPU does: its fused multiply-add, its memory model, its speed. The fast intrinsics
have errors as large as CUDA's programming guide allows.
"""

import ctypes
import functools
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from places import ROOT

from eg3d_ops import _build

FOLDER = Path(__file__).resolve().parent
CACHE = ROOT / "build" / "cuda_emulator"
OPS = (
    *("bias_act", "bias_act_grad", "bias_act_grad2", "modulated_lrelu", "upfirdn2d"),
    *("render_rays", "render_rays_backward", "rasterize"),
)


@functools.cache
def load() -> tuple[Any, ctypes.CDLL]:
    """Return the ops and the library with the switches of the emulator. Raise BuildError if there is no compiler."""
    path = _build_library()
    library = torch.library.Library("eg3d_emulated", "DEF")
    for op in OPS:
        library.define(str(getattr(torch.ops.eg3d_ops, op).default._schema).removeprefix("eg3d_ops::"))
    load.definitions = library  # type: ignore[attr-defined]  # the object keeps the definitions alive
    torch.ops.load_library(str(path))
    switches = ctypes.CDLL(str(path))
    switches.emulator_self_test.restype = ctypes.c_char_p
    return torch.ops.eg3d_emulated, switches


@contextmanager
def reversed_threads() -> Iterator[None]:
    """Run threads and blocks in the opposite order."""
    _, switches = load()
    switches.emulator_reverse(1)
    try:
        yield
    finally:
        switches.emulator_reverse(0)


@contextmanager
def largest_errors() -> Iterator[None]:
    """Let every fast intrinsic be off by the most that is allowed, always upwards, so that the errors add up."""
    _, switches = load()
    switches.emulator_largest_errors(1)
    try:
        yield
    finally:
        switches.emulator_largest_errors(0)


def _build_library() -> Path:
    sources = [*sorted(FOLDER.glob("*.cpp")), *sorted((_build.CSRC / "cuda").glob("bind_*.cpp"))]
    kernels = sorted((_build.CSRC / "cuda").glob("*.cu"))
    torch_folder = _build.find_torch()
    command = [
        *(_build.find_cxx(), *_build.HOST_FLAGS, "-O0", "-shared"),
        # The emulator's longjmp switches stacks, which hardened builds take for an attack.
        "-U_FORTIFY_SOURCE",
        *(f"-I{FOLDER}", f"-I{_build.CSRC}", "-isystem", str(torch_folder / "include")),
        *map(str, sources),
        *("-x", "c++", *map(str, kernels)),
        *(f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-lc10"),
    ]
    texts = (".h", ".cuh", ".cpp", ".cu")
    files = [path for folder in (FOLDER, _build.CSRC / "cuda") for path in sorted(folder.rglob("*"))]
    files += sorted(_build.CSRC.glob("*.h"))
    files = [path for path in files if path.suffix in texts]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files) + " ".join(command).encode()).hexdigest()[:16]
    path = CACHE / f"emulated-{digest}{_build.SUFFIX}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # other processes of the test run wait for it instead of building, too
        if not path.exists():
            scratch = path.with_suffix(f".{os.getpid()}")  # a build that is killed leaves no library
            done = subprocess.run([*command, "-o", str(scratch)], capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"the CUDA sources do not compile for the host:\n{done.stderr[:4000]}")
            os.replace(scratch, path)
    return path
