"""Compile all CUDA sources on a machine without a GPU: `make check-cuda`.

1. Build the library that users get, with nvcc for sm_80 and sm_90, and load it once to find undefined symbols.
2. Compile every kernel for those architectures again, to read registers and spills from the assembler's log.
3. Compile every kernel for sm_70 (V100). nvcc 13 no longer supports it, but NVRTC 12.8 does. It is installed from PyPI
   into build/nvrtc, because torch brings another version of NVRTC into the environment.
4. Read the PTX code for arithmetic in float64: only kernels of float64 may have any, because most GPUs are many times
   slower with it, and those of FLOAT64_KERNELS.

Prints one line per kernel and architecture. A missing compiler is a failure. tests/ops/test_cuda_sources.py checks that
the kernels compute the right results.
"""

import argparse
import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "eg3d_ops"))

import _build  # type: ignore[import-not-found]  # noqa: E402  (importing the package would load PyTorch)

SOURCES = _build.CSRC / "cuda"
ARCHS = ["80", "90"]
NVRTC = ROOT / "build" / "nvrtc"
NVRTC_PACKAGES = ["nvidia-cuda-nvrtc-cu12==12.8.*", "nvidia-cuda-runtime-cu12==12.8.*"]
# Depths must not depend on how a compiler fuses operations: rasterize_setup.h.
FLOAT64_KERNELS = ("draw_triangles_kernel",)
CPU_OPS = {"eg3d_ops::styled_conv3x3"}  # on a GPU, cuDNN's own convolutions are the fast ones
MOST_SPILLED = 64  # bytes; more would make a kernel measurably slower

ALL = ("float", "double", "__half", "__nv_bfloat16")
PLANES = ("float", "__half", "__nv_bfloat16")
RESAMPLING = ("0, 0, 0", "1, 1, 4", "2, 1, 4", "1, 2, 4")
KERNELS = {  # header -> template instances that the launchers use
    "bias_act_kernel.cuh": [
        f"{k}<{t}>" for k in ("bias_act_kernel", "bias_act_grad_kernel", "bias_act_grad2_kernel") for t in ALL
    ],
    "modulated_lrelu_kernel.cuh": [f"modulated_lrelu_kernel<{t}>" for t in ALL],
    "upfirdn2d_kernel.cuh": [f"upfirdn2d_kernel<{t}, {n}>" for t in ALL for n in RESAMPLING],
    "planes_kernel.cuh": [*(f"pack_planes_kernel<{t}>" for t in PLANES), "unpack_planes_kernel"],
    "render_forward_kernel.cuh": [f"render_forward_kernel<{t}>" for t in PLANES],
    "rasterize_kernel.cuh": ["clear_keys_kernel", "draw_triangles_kernel", "read_keys_kernel"],
    "render_backward_kernel.cuh": [*(f"render_backward_kernel<{t}>" for t in PLANES), "sum_partials_kernel"],
}


class CheckFailed(Exception):
    """A check failed. The message says what is wrong and, where possible, the remedy."""


class Usage(NamedTuple):
    """Resources of one compiled kernel."""

    kernel: str
    arch: str
    registers: int
    spilled: int  # bytes, stores plus loads
    stack: int  # bytes


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    failed = False
    for step in (check_table, check_library, check_nvcc_kernels, check_nvrtc_kernels, check_float64):
        try:
            for line in step():
                print(line, flush=True)
        except (CheckFailed, _build.BuildError) as error:
            failed = True
            print(f"FAILED  {step.__name__.removeprefix('check_')}: {error}", flush=True)
    print("CUDA sources: FAILED" if failed else "CUDA sources: all compiled")
    return int(failed)


# ----- Steps: each yields lines to print ------------------------------------------------------------------


def check_table() -> Iterator[str]:
    """Check that KERNELS lists every kernel, because others would not be compiled here."""
    for header in sorted(SOURCES.glob("*.cuh")):
        defined = set(re.findall(r"__global__[^;{]*?\b(\w+_kernel)\(", header.read_text(encoding="utf-8")))
        listed = {instance.split("<")[0] for instance in KERNELS.get(header.name, [])}
        if defined != listed:
            raise CheckFailed(
                f"{header.name} defines {sorted(defined)}, but KERNELS in {__file__} lists {sorted(listed)}"
            )
    yield f"ok      {sum(map(len, KERNELS.values()))} instances of kernels in {len(KERNELS)} headers"


def check_library() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        library = _build.build("cuda", Path(folder), ARCHS)
        yield f"ok      library for sm_{', sm_'.join(ARCHS)} and PTX, {library.stat().st_size / 2**20:.1f} MB"
        script = (
            "import sys, torch, eg3d_ops\n"
            "torch.ops.load_library(sys.argv[1])\n"
            "ops = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith('eg3d_ops::')]\n"
            "missing = [n for n in ops if not torch._C._dispatch_has_kernel_for_dispatch_key(n, 'CUDA')]\n"
            f"missing = set(missing) - {CPU_OPS}\n"
            "sys.exit(f'no CUDA kernel: {missing}' if missing else 0)\n"
        )
        run([sys.executable, "-c", script, str(library)], "loading the library", cwd=ROOT)
        yield "ok      library loads, and has a kernel for every op of a GPU"


def check_nvcc_kernels() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(SOURCES.glob("*.cu")):
            command = [*_build._compile_cu(ARCHS), "-Xptxas=-v", "-c", str(source), "-o", f"{folder}/{source.stem}.o"]
            yield from report(run(command, f"nvcc on {source.name}"))


def check_nvrtc_kernels() -> Iterator[str]:
    compiler = Nvrtc()
    for header, instances in KERNELS.items():
        yield from report(compiler.compile(header, instances))


def check_float64() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(SOURCES.glob("*.cu")):
            ptx = Path(folder) / f"{source.stem}.ptx"
            arch = f"-arch=compute_{ARCHS[-1]}"
            command = [_build.find_nvcc(), "-std=c++17", arch, f"-I{_build.CSRC}", "-ptx", str(source), "-o", str(ptx)]
            run(command, f"nvcc -ptx on {source.name}")
            counts = float64_instructions(ptx.read_text(encoding="utf-8"))
            named = dict(zip(demangle(list(counts)), counts.values(), strict=True))
            if using := [f"{name}: {n}" for name, n in named.items() if n and not may_use_float64(name)]:
                raise CheckFailed(f"kernels of other types compute in float64, instructions: {'; '.join(using)}")
            without = sum(n == 0 for n in named.values())
            yield f"ok      {source.name}: no float64 in {without} of {len(named)} kernels"


def may_use_float64(name: str) -> bool:
    """Return whether a kernel may compute in float64. Without c++filt, names are mangled."""
    return "double" in name or any(kernel in name for kernel in FLOAT64_KERNELS)


def float64_instructions(ptx: str) -> dict[str, int]:
    """Return the number of instructions on float64 values in each kernel. Loads of parameters do not count."""
    counts = {}
    for kernel in re.split(r"\.entry\s+", ptx)[1:]:
        lines = re.findall(r"^\s*(?:@\S+\s+)?([a-z]\w*\.[\w.]*f64[\w.]*)\s", kernel, re.MULTILINE)
        counts[re.split(r"[(\s]", kernel, maxsplit=1)[0]] = sum(not line.startswith("ld.param") for line in lines)
    return counts


# ----- The assembler's log --------------------------------------------------------------------------------

USAGE = re.compile(
    r"Compiling entry function '(?P<kernel>\S+)' for 'sm_(?P<arch>\d+)'.*?(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def report(log: str) -> Iterator[str]:
    found = [
        Usage(m["kernel"], m["arch"], int(m["registers"]), int(m["stores"]) + int(m["loads"]), int(m["stack"]))
        for m in USAGE.finditer(log)
    ]
    if not found:
        raise CheckFailed(f"the assembler reported no kernels:\n{log[:2000]}")
    names = demangle([usage.kernel for usage in found])
    for name, usage in sorted(zip(names, found, strict=True), key=lambda pair: (pair[0], pair[1].arch)):
        numbers = f"{usage.registers:>3} registers, {usage.spilled} bytes spilled, stack {usage.stack}"
        yield f"ok      sm_{usage.arch} {name:<42} {numbers}"
    spilling = [
        f"{name} on sm_{usage.arch}" for name, usage in zip(names, found, strict=True) if usage.spilled > MOST_SPILLED
    ]
    if spilling:
        raise CheckFailed(f"more than {MOST_SPILLED} bytes of registers spill in {', '.join(spilling)}")


def demangle(names: list[str]) -> list[str]:
    """Return readable names such as `upfirdn2d_kernel<float, 2, 1, 4>`. Without c++filt, names stay as they are."""
    if not (filt := shutil.which("c++filt")):
        return names
    lines = subprocess.run(
        [filt], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line.removeprefix("void ").removeprefix("eg3d::").split("(")[0] for line in lines]


def run(command: list[str], what: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        raise CheckFailed(f"{what}:\n{(done.stdout + done.stderr)[:4000]}")
    return done.stdout + done.stderr


# ----- NVRTC ----------------------------------------------------------------------------------------------


class Nvrtc:
    """The compiler library, called through its C interface."""

    def __init__(self) -> None:
        library = NVRTC / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"
        if not library.exists():
            remedy = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(NVRTC), *NVRTC_PACKAGES]
            run(remedy, f"NVRTC 12.8 is missing and could not be installed; the command was {' '.join(remedy)}")
        self.library = ctypes.CDLL(str(library))
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compile(self, header: str, instances: list[str]) -> str:
        """Compile the kernel instances of one header for sm_70 and return the log."""
        program = ctypes.c_void_p()
        source = f'#include "{header}"\n'.encode()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source, b"check.cu", 0, None, None)
        for instance in instances:
            self._call("nvrtcAddNameExpression", program, f"eg3d::{instance}".encode())
        include = NVRTC / "nvidia" / "cuda_runtime" / "include"
        # Without -default-device, NVRTC treats a lambda inside a kernel as host code.
        options = ["--gpu-architecture=sm_70", "-std=c++17", "-default-device", "--ptxas-options=-v"]
        options += [f"-I{SOURCES}", f"-I{include}"]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = self.library.nvrtcCompileProgram(program, len(options), encoded)
        size = ctypes.c_size_t()
        self._call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self._call("nvrtcGetProgramLog", program, log)
        self._call("nvrtcDestroyProgram", ctypes.byref(program))
        text = log.value.decode()
        if status != 0:
            raise CheckFailed(f"NVRTC on {header} for sm_70:\n{text[:4000]}")
        return text

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self.library, function)(*arguments)
        if status != 0:
            raise CheckFailed(f"{function}: {self.library.nvrtcGetErrorString(status).decode()}")


if __name__ == "__main__":
    sys.exit(main())
