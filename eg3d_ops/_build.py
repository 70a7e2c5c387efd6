"""Compiles csrc/ into one shared library per device type, with ninja.

The same function serves `setup.py` (ahead of time, into the package) and the first use of an op
(lazily, into the user's cache). The libraries touch torch only through its stable ABI, so one
build serves every Python and every torch from 2.10 on.

This file imports nothing of the package: `setup.py` loads it by path, possibly where torch is missing.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CSRC = PACKAGE / "csrc"
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # 2.10: the newest torch that runs on V100
HOST_FLAGS = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", TORCH_TARGET]
# Contraction to FMA is wanted; nothing else of -ffast-math is: infinities and NaN must pass through.
KERNEL_FLAGS = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
CPU_ISAS = {  # every *_kernel.cpp is compiled once for each; dispatch.cpp picks at run time
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
}
DEFAULT_CUDA_ARCHS = ["80", "90"]


class BuildError(RuntimeError):
    """A library could not be built; the message names the cause and the remedy."""


def source_digest(target: str) -> str:
    """Fingerprint of everything a library is made from: a stale library is never picked up."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted((CSRC / target).rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def library_name(target: str, archs: list[str] | None = None) -> str:
    """`eg3d_ops_cpu-<digest>.so`, `eg3d_ops_cuda-<digest>-80.90.so`."""
    tail = "-" + ".".join(archs) if archs else ""
    return f"eg3d_ops_{target}-{source_digest(target)}{tail}{SUFFIX}"


def cuda_archs_from_env() -> list[str]:
    """Architectures named by TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX"), else sm_80 and sm_90."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(" ", ";").split(";")
    archs = {entry.removesuffix("+PTX").replace(".", "") for entry in listed if entry}
    return sorted(archs, key=int) if archs else DEFAULT_CUDA_ARCHS


def find_cxx() -> str:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and (found := shutil.which(name)):
            return found
    raise BuildError("no C++ compiler found (looked at $CXX, c++, g++, clang++); install one, e.g. `apt install g++`")


def find_nvcc() -> str:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    for home in homes:
        if home and (nvcc := Path(home) / "bin" / "nvcc").exists():
            return str(nvcc)
    if found := shutil.which("nvcc"):
        return found
    raise BuildError("no nvcc found (looked at $CUDA_HOME, $CUDA_PATH, /usr/local/cuda, $PATH); install the CUDA toolkit or set CUDA_HOME")


def find_ninja() -> str:
    """ninja on PATH or beside the interpreter: a virtual environment need not be activated."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    if found := shutil.which("ninja", path=path):
        return found
    raise BuildError("no ninja found; `pip install ninja`")


def _torch_paths() -> tuple[Path, Path]:
    import torch

    root = Path(torch.__file__).parent
    return root / "include", root / "lib"


def ninja_file(target: str, output: Path, archs: list[str]) -> str:
    """The text of build.ninja for one library."""
    include, lib = _torch_paths()
    cxx = find_cxx()
    flags = [*HOST_FLAGS, f"-isystem {include}", f"-I{CSRC}"]
    rules = [f"rule cxx\n  command = {cxx} -MMD -MF $out.d {' '.join(flags)} $flags -c $in -o $out\n  depfile = $out.d\n  deps = gcc"]
    edges, objects = [], []

    def add(rule: str, source: str, name: str, extra: list[str]) -> None:
        edges.append(f"build {name}.o: {rule} {CSRC / target / source}\n  flags = {' '.join(extra)}")
        objects.append(f"{name}.o")

    sources = sorted(path.name for path in (CSRC / target).iterdir())
    for source in sources:
        if source.endswith(".cpp") and not source.endswith("_kernel.cpp"):
            add("cxx", source, Path(source).stem, [])
    libraries = [f"-L{lib}", "-ltorch_cpu", "-lc10"]
    if target == "cpu":
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        kernels = [source for source in sources if source.endswith("_kernel.cpp")]
        for isa, isa_flags in CPU_ISAS.items() if x86 else [("portable", [])]:
            for source in kernels:
                add("cxx", source, f"{Path(source).stem}_{isa}", [*KERNEL_FLAGS, f"-DEG3D_ISA={isa}", *isa_flags])
    else:
        nvcc = find_nvcc()
        gencode = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
        gencode += [f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]  # PTX for newer devices
        rules.append(f"rule nvcc\n  command = {nvcc} -ccbin {cxx} -std=c++17 -O3 -Xcompiler -fPIC,-fvisibility=hidden {' '.join(gencode)} -I{CSRC} -c $in -o $out")
        for source in sources:
            if source.endswith(".cu"):
                add("nvcc", source, f"{Path(source).stem}_cu", [])
        # Static runtime: no libcudart of a particular version to find at load time.
        toolkit = Path(nvcc).resolve().parent.parent
        libraries += [f"-L{toolkit / 'lib64'}", "-ltorch_cuda", "-lc10_cuda", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    rules.append(f"rule link\n  command = {cxx} -shared $in -o $out {' '.join(libraries)}")
    edges.append(f"build {output.name}: link {' '.join(objects)}")
    return "\n".join(["ninja_required_version = 1.3", *rules, *edges, f"default {output.name}", ""])


def build(target: str, folder: Path, archs: list[str] | None = None) -> Path:
    """Builds the library of `target` ("cpu" or "cuda") into `folder`; returns its path.

    Everything happens in a scratch folder; the finished library is renamed into place.
    """
    archs = archs or (cuda_archs_from_env() if target == "cuda" else [])
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / library_name(target, archs)
    with tempfile.TemporaryDirectory(prefix=f".{target}-", dir=folder) as scratch:
        Path(scratch, "build.ninja").write_text(ninja_file(target, output, archs))
        done = subprocess.run([find_ninja(), "-C", scratch], capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"compiling the {target} ops failed:\n{_excerpt(done.stdout + done.stderr)}")
        os.replace(Path(scratch, output.name), output)
    return output


def _excerpt(log: str, lines: int = 30) -> str:
    """The lines around the first error: the rest of a compiler's log rarely helps."""
    rows = log.splitlines()
    first = next((i for i, row in enumerate(rows) if "error" in row.lower() or "FAILED" in row), 0)
    return "\n".join(rows[first : first + lines])
