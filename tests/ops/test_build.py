"""Tests of building a library: names, tools, unusual paths, errors. The sources are stand-ins (tiny_ops)."""

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_ops import SOURCE, write_compiler, write_sources

from eg3d_ops import _build


@pytest.fixture
def csrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_sources(tmp_path / "csrc")
    monkeypatch.setattr(_build, "CSRC", folder)
    return folder


def isa_of(library: Path) -> int:
    return ctypes.CDLL(str(library)).eg3d_ops_cpu_isa(-1)


# ----- Names ----------------------------------------------------------------------------------------------


def test_name_follows_the_sources(csrc: Path) -> None:
    names = [_build.library_name("cpu")]
    (csrc / "cpu" / "tiny.cpp").write_text(SOURCE + "// changed\n")
    names.append(_build.library_name("cpu"))
    (csrc / "cpu" / "nested").mkdir()
    (csrc / "cpu" / "nested" / "new.h").write_text("")
    names.append(_build.library_name("cpu"))
    (csrc / "cpu" / "tiny.cpp").rename(csrc / "cpu" / "renamed.cpp")
    names.append(_build.library_name("cpu"))
    assert len(set(names)) == 4
    assert names[0] == f"eg3d_ops_cpu-{names[0][13:29]}{_build.SUFFIX}"


def test_name_does_not_follow_the_other_target(csrc: Path) -> None:
    before = _build.library_name("cpu")
    (csrc / "cuda").mkdir()
    (csrc / "cuda" / "kernel.cu").write_text("")
    assert _build.library_name("cpu") == before
    assert _build.library_name("cuda", ["80", "90"]).endswith(f"-80.90{_build.SUFFIX}")


@pytest.mark.parametrize(
    ("listed", "archs"),
    [
        ("", ["80", "90"]),
        ("7.5", ["75"]),
        ("9.0;8.0", ["80", "90"]),
        ("8.0 9.0+PTX", ["80", "90"]),
        ("10.0;9.0a;8.6;", ["86", "90", "100"]),
    ],
)
def test_cuda_archs(listed: str, archs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    assert _build.cuda_archs_from_env() == archs


@pytest.mark.parametrize("entry", ["Ampere", "80", "sm_80", "8.0,9.0"])
def test_bad_cuda_archs(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", f"9.0;{entry}")
    with pytest.raises(_build.BuildError, match=f"TORCH_CUDA_ARCH_LIST: '{entry}' must look like 8.0"):
        _build.cuda_archs_from_env()


# ----- Tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"PATH": ""}, r"no C\+\+ compiler found .* `apt install g\+\+`"),
        ({"CXX": "nonesuch++"}, r"CXX='nonesuch\+\+' names no program; set it .* or unset it"),
        ({"CXX": "ccache g++"}, r"CXX='ccache g\+\+' names no program; set it to a single C\+\+ compiler"),
    ],
)
def test_missing_compiler(env: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(_build.BuildError, match=message):
        _build.check_tools("cpu")


def test_missing_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(_build.BuildError, match="no .*/bin/nvcc; set CUDA_HOME to the folder of a CUDA toolkit"):
        _build.find_nvcc()


@pytest.mark.parametrize("folder", ["lib64", f"targets/{platform.machine()}-linux/lib", "lib"])
def test_the_runtime_is_found_where_installers_put_it(folder: str, tmp_path: Path) -> None:
    """NVIDIA's installers and conda use other folders."""
    nvcc = write_compiler(tmp_path / "bin" / "nvcc", "")
    with pytest.raises(_build.BuildError, match=r"no libcudart_static.a \(looked in .*; install the toolkit's runtime"):
        _build.find_cuda_runtime(nvcc)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "libcudart_static.a").touch()
    assert _build.find_cuda_runtime(nvcc) == tmp_path / folder


def test_torch_without_cuda(compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_compiler(tmp_path / "bin" / "nvcc", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(_build, "find_torch", lambda: tmp_path)
    with pytest.raises(_build.BuildError, match="torch has no CUDA support; install a CUDA build"):
        _build.check_tools("cuda")


def test_ninja_is_found_without_activating_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("ninja", path=str(Path(sys.executable).parent)):
        pytest.skip("ninja is not installed beside this interpreter")
    monkeypatch.setenv("PATH", "")
    assert Path(_build.find_ninja()).parent == Path(sys.executable).parent


def test_missing_ninja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(_build.sysconfig, "get_path", lambda *names: str(tmp_path))
    with pytest.raises(_build.BuildError, match="no ninja found; `pip install ninja`"):
        _build.find_ninja()


# ----- Building -------------------------------------------------------------------------------------------


def test_build_says_what_it_does_and_leaves_only_the_library(csrc: Path, compiler: None, tmp_path: Path) -> None:
    said: list[str] = []
    library = _build.build("cpu", tmp_path / "lib", say=said.append)
    assert [row.split()[0] for row in said] == [f"[{step}/{len(said)}]" for step in range(1, len(said) + 1)] != []
    assert [library] == list((tmp_path / "lib").iterdir())
    assert library.name == _build.library_name("cpu")
    assert isa_of(library) == 0


KERNEL = """
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#if defined(__AVX512F__)
int JOIN(bytes_, EG3D_ISA)() { return 64; }
#elif defined(__AVX2__)
int JOIN(bytes_, EG3D_ISA)() { return 32; }
#else
int JOIN(bytes_, EG3D_ISA)() { return 16; }
#endif
"""


@pytest.mark.parametrize(("machine", "total"), [("x86_64", 16 + 32 + 64), ("aarch64", 16)])
def test_kernels_are_compiled_once_per_instruction_set(
    machine: str, total: int, csrc: Path, compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library sums the vector sizes in bytes that the compiled copies of one kernel file return."""
    if machine == "x86_64" != platform.machine():
        pytest.skip(f"a compiler for {platform.machine()} has no AVX")
    isas = list(_build.CPU_ISAS) if machine == "x86_64" else ["portable"]
    calls = [f"bytes_{isa}()" for isa in isas]
    (csrc / "cpu" / "width_kernel.cpp").write_text(KERNEL)
    (csrc / "cpu" / "tiny.cpp").write_text(
        f"int {', '.join(calls)};\n"
        'extern "C" __attribute__((visibility("default")))\n'
        f"int eg3d_ops_cpu_isa(int) {{ return {' + '.join(calls)}; }}\n"
    )
    monkeypatch.setattr(_build.platform, "machine", lambda: machine)
    assert isa_of(_build.build("cpu", tmp_path)) == total


def test_odd_characters_in_every_path(compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of sources, output, compiler and torch may contain spaces, quotes, dollar signs and colons."""
    odd = tmp_path / "it's a $HOME: (1) & more"
    monkeypatch.setattr(_build, "CSRC", write_sources(odd / "c src"))
    torch = odd / "site packages" / "torch"
    torch.parent.mkdir()
    torch.symlink_to(_build.find_torch())
    cxx = write_compiler(odd / "my tools" / "c++", f'exec "{_build.find_cxx()}" "$@"')
    monkeypatch.setattr(_build, "find_torch", lambda: torch)
    monkeypatch.setenv("CXX", str(cxx))
    library = _build.build("cpu", odd / "the cache")
    assert library.parent == odd / "the cache"
    assert isa_of(library) == 0


def test_broken_source_gives_the_compilers_words(csrc: Path, compiler: None, tmp_path: Path) -> None:
    (csrc / "cpu" / "tiny.cpp").write_text("int f() { return undeclared_name; }\n")
    with pytest.raises(_build.BuildError, match=r"compiling the cpu ops failed:(.|\n)*undeclared_name"):
        _build.build("cpu", tmp_path / "lib")
    assert list((tmp_path / "lib").iterdir()) == []


def test_the_file_is_usable_where_torch_is_missing(tmp_path: Path) -> None:
    """_build.py can be loaded without torch: setup.py loads it by path in pip's isolated builds."""
    code = (
        "import importlib.util as u\n"
        f"spec = u.spec_from_file_location('b', {_build.__file__!r})\n"
        "b = u.module_from_spec(spec); spec.loader.exec_module(b)\n"
        "b.check_tools('cpu')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert "torch cannot be imported here; install it first, and with pip add --no-build-isolation" in done.stderr
