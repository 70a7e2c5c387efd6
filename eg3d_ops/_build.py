"""Compile csrc/ into one shared library per device type, with ninja.

`setup.py` calls it ahead of time, for the package; the first use of an op calls it for the user's cache. The libraries
use torch only through its stable ABI, so one build serves every Python and every torch from 2.10 on.

This file imports nothing from the package: `setup.py` loads it by path, possibly where torch is missing.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CSRC = PACKAGE / "csrc"
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # 2.10: the newest torch that runs on V100
HOST_FLAGS = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", TORCH_TARGET]
# Contraction to FMA is allowed, but no other part of -ffast-math: infinities and NaN must pass through.
KERNEL_FLAGS = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
CPU_ISAS = {  # every *_kernel.cpp is compiled once for each; dispatch.cpp picks at run time
    "portable": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
}
DEFAULT_CUDA_ARCHS = ["80", "90"]


class BuildError(RuntimeError):
    """A library could not be built; the message names the cause and the remedy."""


# ----- Names of libraries ---------------------------------------------------------------------------------


def source_digest(target: str) -> str:
    """Return a fingerprint of everything a library is built from, so that a stale library is never used."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted([*CSRC.glob("*.h"), *(CSRC / target).rglob("*")]):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def library_name(target: str, archs: list[str] | None = None) -> str:
    """Return `eg3d_ops_cpu-<digest>.so` or `eg3d_ops_cuda-<digest>-80.90.so`."""
    tail = "-" + ".".join(archs) if archs else ""
    return f"eg3d_ops_{target}-{source_digest(target)}{tail}{SUFFIX}"


def cuda_archs_from_env() -> list[str]:
    """Return the architectures of TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX"), or sm_80 and sm_90."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(" ", ";").split(";")
    archs = set()
    for entry in filter(None, listed):
        # "9.0a" requests features of one chip only; these sources use none, so plain 9.0 is enough.
        match = re.fullmatch(r"(\d+)\.(\d)[af]?(\+PTX)?", entry)
        if not match:
            raise BuildError(f"TORCH_CUDA_ARCH_LIST: {entry!r} must look like 8.0 or 9.0+PTX, entries separated by ;")
        archs.add(match[1] + match[2])
    return sorted(archs, key=int) if archs else DEFAULT_CUDA_ARCHS


# ----- The tools ------------------------------------------------------------------------------------------


def find_cxx() -> str:
    if wanted := os.environ.get("CXX"):
        if found := shutil.which(wanted):
            return found
        raise BuildError(f"CXX={wanted!r} names no program; set it to a single C++ compiler or unset it")
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    raise BuildError("no C++ compiler found (looked for c++, g++, clang++); install one, e.g. `apt install g++`")


def find_nvcc() -> str:
    if wanted := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        nvcc = Path(wanted) / "bin" / "nvcc"
        if nvcc.exists():
            return str(nvcc)
        raise BuildError(f"no {nvcc}; set CUDA_HOME to the folder of a CUDA toolkit or unset it")
    usual = "/usr/local/cuda/bin"
    if found := shutil.which("nvcc", path=os.pathsep.join([usual, os.environ.get("PATH", "")])):
        return found
    raise BuildError(
        f"no nvcc found (looked in {usual} and $PATH); install the CUDA toolkit or set CUDA_HOME to its folder"
    )


def find_cuda_runtime(nvcc: Path) -> Path:
    """Return the folder of libcudart_static.a in the toolkit of `nvcc`.

    NVIDIA's installers put it into lib64, conda into targets/<machine>-linux/lib, and both link other folders to it.
    """
    toolkit = nvcc.resolve().parent.parent
    folders = [toolkit / "lib64", toolkit / f"targets/{platform.machine()}-linux/lib", toolkit / "lib"]
    for folder in folders:
        if (folder / "libcudart_static.a").exists():
            return folder
    looked = ", ".join(map(str, folders))
    raise BuildError(
        f"no libcudart_static.a (looked in {looked}); install the toolkit's runtime (conda: cuda-cudart-static) "
        "or set CUDA_HOME to a complete toolkit"
    )


def find_ninja() -> str:
    """Find ninja on PATH or next to the interpreter, so that a virtual environment need not be activated."""
    user_scripts = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    path = os.pathsep.join([sysconfig.get_path("scripts"), user_scripts, os.environ.get("PATH", "")])
    if found := shutil.which("ninja", path=path):
        return found
    raise BuildError("no ninja found; `pip install ninja`")


def find_torch() -> Path:
    """Find the folder of torch without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "torch cannot be imported here; install it first, and with pip add --no-build-isolation, "
            "because pip's isolated builds see none of the installed packages"
        )
    return Path(spec.origin).parent


def check_tools(target: str) -> None:
    """Raise BuildError with the name of a missing tool, unless `target` can be compiled here."""
    torch = find_torch()
    find_cxx()
    find_ninja()
    if target == "cuda":
        find_nvcc()
        if not (torch / "lib" / f"libtorch_cuda{SUFFIX}").exists():
            raise BuildError("the installed torch has no CUDA support; install a CUDA build of torch")


# ----- Building -------------------------------------------------------------------------------------------


def build(
    target: str, folder: Path, archs: list[str] | None = None, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Build the library of `target` ("cpu" or "cuda") in `folder` and return its path.

    Everything happens in a scratch folder; the finished library is renamed into place. `say` is called with a line for
    each file that is compiled.
    """
    check_tools(target)
    archs = archs or (cuda_archs_from_env() if target == "cuda" else [])
    output = folder / library_name(target, archs)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=scratch_prefix(output), dir=folder) as scratch:
        Path(scratch, "build.ninja").write_text(ninja_file(target, output.name, archs), encoding="utf-8")
        code, log = _run_ninja(scratch, say)
        if code != 0:
            raise BuildError(f"compiling the {target} ops failed:\n{_excerpt(log)}")
        os.replace(Path(scratch, output.name), output)
    return output


def _run_ninja(scratch: str, say: Callable[[str], None]) -> tuple[int, str]:
    """Run ninja, and return its exit code and everything it printed."""
    rows = []
    with subprocess.Popen(
        [find_ninja(), "-C", scratch],
        env={**os.environ, "NINJA_STATUS": "[%f/%t] "},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for row in process.stdout:
            rows.append(row)
            if row.startswith("["):
                say(row.strip())
    return process.returncode, "".join(rows)


def scratch_prefix(output: Path) -> str:
    """Return the prefix of a library's scratch folders, by which the remains of a killed build can be found."""
    return f".{output.name}-"


def ninja_file(target: str, output: str, archs: list[str]) -> str:
    """Return the text of build.ninja for one library."""
    objects = _objects(target)
    rules = {".cpp": _compile_cpp()} | ({".cu": _compile_cu(archs)} if target == "cuda" else {})
    lines = ["ninja_required_version = 1.3"]
    for suffix, command in rules.items():
        lines += [f"rule {suffix[1:]}", f"  command = {_words(command)} $flags -c $in -o $out"]
        lines += [f"  description = {Path(command[0]).name} $out"]
    lines += ["rule link", f"  command = {_words([find_cxx(), '-shared'])} $in -o $out {_words(_libraries(target))}"]
    lines += ["  description = link $out"]
    for name, source, flags in objects:
        lines += [f"build {name}: {source.suffix[1:]} {_escaped(str(source))}", f"  flags = {_words(flags)}"]
    lines += [f"build {output}: link {' '.join(name for name, _, _ in objects)}", f"default {output}", ""]
    return "\n".join(lines)


def _objects(target: str) -> list[tuple[str, Path, list[str]]]:
    """Return everything to compile: object file, source, extra flags."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    isas = CPU_ISAS if x86 else {"portable": CPU_ISAS["portable"]}
    objects: list[tuple[str, Path, list[str]]] = []
    for source in sorted((CSRC / target).iterdir()):
        if source.name.endswith("_kernel.cpp"):
            for isa, flags in isas.items():
                objects.append((f"{source.stem}_{isa}.o", source, [*KERNEL_FLAGS, f"-DEG3D_ISA={isa}", *flags]))
        elif source.suffix in (".cpp", ".cu"):
            objects.append((f"{source.name}.o", source, []))
    return objects


def _compile_cpp() -> list[str]:
    return [find_cxx(), *HOST_FLAGS, "-isystem", str(find_torch() / "include"), f"-I{CSRC}"]


def _compile_cu(archs: list[str]) -> list[str]:
    gencode = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    gencode += [f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]  # PTX for newer devices
    host = ["-ccbin", find_cxx(), "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    return [find_nvcc(), *host, "-std=c++17", "-O3", *gencode, f"-I{CSRC}"]


def _libraries(target: str) -> list[str]:
    libraries = [f"-L{find_torch() / 'lib'}", "-ltorch_cpu", "-lc10"]
    if target == "cuda":
        # Static runtime: no libcudart of a particular version to find at load time.
        libraries += [f"-L{find_cuda_runtime(Path(find_nvcc()))}", "-ltorch_cuda", "-lc10_cuda"]
        libraries += ["-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    return libraries


def _words(words: list[str]) -> str:
    """Quote a command line for the shell, then its dollars for ninja."""
    return shlex.join(words).replace("$", "$$")


def _escaped(path: str) -> str:
    """Escape a path for a build statement of ninja."""
    return re.sub(r"[$ :]", r"$\g<0>", path)


def _excerpt(log: str, lines: int = 30) -> str:
    """Return the lines around the first error: the rest of a compiler's log rarely helps."""
    rows = log.splitlines()
    first = next((i for i, row in enumerate(rows) if "error" in row.lower() or "FAILED" in row), 0)
    return "\n".join(rows[first : first + lines])
