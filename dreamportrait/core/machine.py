"""Descriptions of the machine, the environment and the repository, which are stored with results."""

import os
import platform
import subprocess
import sys
import time
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dreamportrait.core.precision import exact_float32, float32_rule

_SHOWN_VARIABLES = (
    "EG3D_OPS",
    "DREAMPORTRAIT",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "WORLD_SIZE",
    "SLURM_JOB_ID",
)
_MAX_DIFF = 2**20


def find_device(device: str | None) -> str:
    """Return the requested device, and make float32 on a GPU exact. Programs call this before they compute.

    The default is "cuda" if there is a GPU, otherwise "cpu".
    """
    exact_float32()
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ValueError("--device cuda: PyTorch sees no GPU here; choose cpu")
    return device or ("cuda" if gpu else "cpu")


def autocast(device: torch.device | str) -> torch.autocast:
    """Return a context that computes in bfloat16 where the processor is fast with it, otherwise in float32.

    Processors without instructions for it emulate bfloat16, which takes two to fifty times as long as float32. oneDNN
    also calls it supported where AVX-512 emulates it.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or has_bfloat16())


def has_bfloat16() -> bool:
    """Return whether the processor has instructions for products of matrices in bfloat16."""
    known = "avx512_bf16", "amx_bf16", "bf16"  # x86, x86 with matrix units, ARM
    return any(
        line.startswith(("flags", "Features")) and set(known) & set(line.split()) for line in _lines("/proc/cpuinfo")
    )


def machine(device: str) -> dict[str, Any]:
    """Describe the processor that a measurement runs on."""
    info: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    if device == "cuda":
        gpu = {
            "name": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
        return info | gpu | {"float32": float32_rule()}
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if "model name" in line]
    name = names[0] if names else platform.processor()
    return info | {"name": name, "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def environment() -> dict[str, Any]:
    """Describe everything that a result may depend on, other than the configuration."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": platform.node(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "float32": float32_rule(),
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SHOWN_VARIABLES)},
        "packages": dict(sorted((each.name, each.version) for each in metadata.distributions() if each.name)),
    }


def code_versions() -> dict[str, str]:
    """Return what identifies the code that this process runs: PyTorch, Python, and a checksum of each source file."""
    root = Path(__file__).resolve().parents[2]
    paths = [path for package in ("dreamportrait", "eg3d_ops") for path in sorted((root / package).rglob("*.*"))]
    sources = [path for path in paths if path.suffix in (".py", ".cpp", ".cu", ".h", ".cuh")]
    found = {path.relative_to(root).as_posix(): f"{zlib.crc32(path.read_bytes()):08x}" for path in sources}
    return {"torch": torch.__version__, "python": platform.python_version()} | found


def git_state() -> dict[str, Any]:
    """Return commit, branch, changed files and diff of the repository that contains this code, or {} without one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != root:  # installed inside another one
            return {}
        commit, branch = git("rev-parse", "HEAD").strip(), git("rev-parse", "--abbrev-ref", "HEAD").strip()
        changed = git("status", "--porcelain").splitlines()
        difference = git("diff", "HEAD", "--", "*.py", "*.yaml", "*.toml", "*.cpp", "*.cu", "*.h")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "branch": branch, "changed": changed, "diff": difference[:_MAX_DIFF]}
