"""Tests of what an installation contains, with and without a compiler. The sources are a copy of this tree."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from places import ROOT
from tiny_ops import write_sources

from eg3d_ops import _build

pytestmark = pytest.mark.lengthy

SHIPPED = ("eg3d_ops", "dreamportrait", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the sources of a wheel, with folders that must not get into the wheel."""
    tree = tmp_path / "the tree"
    tree.mkdir()
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            # Weights are left out, because each wheel would compress them anew.
            ignored = shutil.ignore_patterns("__pycache__", "lib", "*.safetensors")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    for script in ("datasets/prepare.py", "eval/__init__.py", "tests/__init__.py", "benchmarks/ops.py"):
        (tree / script).parent.mkdir()
        (tree / script).write_text("raise SystemExit('never to be imported')\n")
    return tree


@pytest.fixture
def tiny_tree(tree: Path) -> Path:
    shutil.rmtree(tree / "eg3d_ops" / "csrc")
    write_sources(tree / "eg3d_ops" / "csrc")
    return tree


def run(*command: str, cwd: Path, **env: str) -> str:
    """Run a command and return what it prints on both streams. Fail with that output if the command fails."""
    environment = {**os.environ, "CUDA_HOME": "/nonexistent", **env}  # nvcc takes a minute and is tested elsewhere
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build_wheel(tree: Path, **env: str) -> tuple[Path, str]:
    """Build a wheel; return its path and what pip printed."""
    pip = [sys.executable, "-m", "pip", "wheel", "-v", "--no-index", "--no-build-isolation", "--no-deps"]
    said = run(*pip, "--wheel-dir", str(tree / "out"), ".", cwd=tree, **env)
    (wheel,) = (tree / "out").iterdir()
    return wheel, said


def installed(wheel: Path) -> Path:
    """Unpack the wheel as pip would lay it out and return the folder."""
    target = wheel.parent.parent / "site packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def uses_prebuilt(site: Path) -> bool:
    """Return True if a process in `site` uses its one prebuilt library, with no tools and no cache."""
    (library,) = (site / "eg3d_ops" / "lib").iterdir()
    code = (
        "import torch, eg3d_ops._backend as b\n"
        "assert b.use_compiled('auto', torch.device('cpu'))\n"
        "print(b.loaded_libraries()['cpu'])\n"
    )
    cache = site / "cache"
    said = run(sys.executable, "-c", code, cwd=site, EG3D_OPS="prebuilt", EG3D_OPS_CACHE=str(cache), PATH="")
    return said == f"{library}\n" and not cache.exists()


def test_without_a_compiler(tree: Path) -> None:
    wheel, said = build_wheel(tree, CXX="nonesuch++")
    assert "not building the cpu ops ahead of time: CXX='nonesuch++' names no program" in said
    assert wheel.name.endswith("-py3-none-any.whl")
    site = installed(wheel)
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"eg3d_ops", "dreamportrait"}
    sources = {path.relative_to(_build.PACKAGE) for path in _build.CSRC.rglob("*") if path.is_file()}
    assert sources <= {path.relative_to(site / "eg3d_ops") for path in site.rglob("eg3d_ops/csrc/**/*")}
    modules = {path.relative_to(tree) for path in (tree / "dreamportrait").rglob("*.py")}
    assert modules == {path.relative_to(site) for path in (site / "dreamportrait").rglob("*.py")}
    code = "import dreamportrait, eg3d_ops; print(dreamportrait.__file__, eg3d_ops.loaded_libraries())"
    assert run(sys.executable, "-c", code, cwd=site) == f"{site / 'dreamportrait' / '__init__.py'} {{}}\n"


def test_skipping_the_build(tiny_tree: Path) -> None:
    wheel, said = build_wheel(tiny_tree, EG3D_OPS_SKIP_BUILD="1")
    assert "EG3D_OPS_SKIP_BUILD is set, building nothing ahead of time" in said
    assert wheel.name.endswith("-py3-none-any.whl")


def test_compiler_that_fails(tiny_tree: Path, compiler: None) -> None:
    (tiny_tree / "eg3d_ops" / "csrc" / "cpu" / "broken.cpp").write_text("int f() { return undeclared_name; }\n")
    with pytest.raises(AssertionError, match=r"undeclared_name(.|\n)*Remedy: fix the cause, .* EG3D_OPS_SKIP_BUILD=1"):
        build_wheel(tiny_tree)


def test_with_a_compiler(tiny_tree: Path, compiler: None) -> None:
    build_lib = tiny_tree / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    stale = build_lib / "eg3d_ops" / "lib" / "eg3d_ops_cpu-0123456789abcdef.so"
    stale.parent.mkdir(parents=True)
    stale.touch()  # from an earlier build of other sources
    wheel, said = build_wheel(tiny_tree)
    assert "not building the cuda ops ahead of time: no /nonexistent/bin/nvcc" in said
    assert not stale.exists()
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform == sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert uses_prebuilt(installed(wheel))


def test_into_the_source_tree(tiny_tree: Path, compiler: None) -> None:
    run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=tiny_tree)
    assert uses_prebuilt(tiny_tree)
    (tiny_tree / "eg3d_ops" / "csrc" / "cpu" / "new.cpp").touch()
    run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=tiny_tree)
    assert uses_prebuilt(tiny_tree)  # the new library is the only one


@pytest.mark.slow  # compiles every source
def test_with_a_compiler_and_the_real_sources(tree: Path, compiler: None) -> None:
    site = installed(build_wheel(tree)[0])
    assert uses_prebuilt(site)
    code = "import torch, eg3d_ops; print(eg3d_ops.bias_act(torch.tensor([-1.0, 2.0]), act='relu', gain=1).tolist())"
    assert run(sys.executable, "-c", code, cwd=site, EG3D_OPS="prebuilt") == "[0.0, 2.0]\n"


# ----- What is promised and shipped -----------------------------------------------------------------------


def requirements(text: str) -> dict[str, str]:
    """Return the names and versions in lines such as `torch>=2.10` or `torch==2.10.0`."""
    pairs = re.findall(r"^\W*([\w-]+)\s*[>=]=\s*([\d.]+)", text, flags=re.MULTILINE)
    return {name.lower().replace("-", "_"): version for name, version in pairs}


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    promised = requirements(listed[1])
    assert len(promised) == len(listed[1].splitlines())  # every dependency has a bound
    oldest = requirements((ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8"))
    assert promised.keys() == oldest.keys()
    for name, version in promised.items():
        assert f"{oldest[name]}.".startswith(f"{version}."), name


def test_the_ops_alone(tmp_path: Path) -> None:
    """A wheel of eg3d_ops alone has all its files and needs torch, ninja and filelock only."""
    tree = shutil.copytree(ROOT / "eg3d_ops", tmp_path / "tree", ignore=shutil.ignore_patterns("__pycache__", "lib"))
    kinds = (".py", ".typed", ".h", ".cpp", ".cu", ".cuh")
    files = {path.relative_to(tree) for path in tree.rglob("*") if path.suffix in kinds or path.name == "py.typed"}
    site = installed(build_wheel(tree)[0])
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"eg3d_ops"}
    packed = {path.relative_to(site / "eg3d_ops") for path in (site / "eg3d_ops").rglob("*") if path.is_file()}
    assert packed == files
    metadata = next(site.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    assert sorted(re.findall(r"^Requires-Dist: ([\w-]+)", metadata, re.MULTILINE)) == ["filelock", "ninja", "torch"]
    code = "import eg3d_ops, sys; print([name for name in ('dreamportrait', 'einops') if name in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=site) == "[]\n"


def test_the_source_distribution_has_what_the_readme_names(tmp_path: Path) -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    if not any(files):
        pytest.skip("not a git checkout: the files of the repository are unknown")
    tree = tmp_path / "tree"
    for name in filter(None, files):
        if (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    code = "from setuptools import build_meta; print(build_meta.build_sdist('out'))"
    name = run(sys.executable, "-c", code, cwd=tree, EG3D_OPS_SKIP_BUILD="1").split()[-1]
    with tarfile.open(tree / "out" / name) as archive:
        packed = {member.partition("/")[2] for member in archive.getnames()}
    left_out = {name for name in filter(None, files) if name not in packed and (ROOT / name).exists()}
    assert left_out <= {".clang-format", ".gitignore", ".ci/run"}
