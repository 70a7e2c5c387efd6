"""Packaging. The metadata is in pyproject.toml; this file builds the compiled ops where the tools for it are.

    pip install .                         works anywhere: pip's isolated build sees no torch, so nothing is compiled
    pip install --no-build-isolation .    builds the libraries into the package, if torch, a compiler and ninja are here
    python setup.py build_ext --inplace   the same, into the source tree

EG3D_OPS_SKIP_BUILD=1 leaves them out in any case. Without them the ops are built at first use.
"""

import importlib.util
import os
import sys
from pathlib import Path

import setuptools

if int(setuptools.__version__.split(".")[0]) < 77:
    sys.exit(f"setuptools {setuptools.__version__} is too old, 77 is needed: pip install -U setuptools")

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def _load_by_path(path: Path):
    """A module of a package that cannot be imported here: importing eg3d_ops needs torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_build = _load_by_path(ROOT / "eg3d_ops" / "_build.py")


def buildable_targets() -> list[str]:
    """The libraries whose tools are all here; says on stderr why the others are left out."""
    if os.environ.get("EG3D_OPS_SKIP_BUILD", "0") not in ("", "0"):
        print("eg3d_ops: EG3D_OPS_SKIP_BUILD is set, building nothing ahead of time", file=sys.stderr)
        return []
    targets = []
    for target in ("cpu", "cuda"):
        try:
            _build.check_tools(target)
            targets.append(target)
        except _build.BuildError as error:
            print(f"eg3d_ops: not building the {target} ops ahead of time: {error}", file=sys.stderr)
    return targets


class BuildOps(build_ext):
    """Puts the libraries into eg3d_ops/lib/. One placeholder extension stands for each."""

    def run(self) -> None:
        root = ROOT if self.inplace else Path(self.build_lib)
        folder = root / "eg3d_ops" / "lib"
        for extension in self.extensions:
            target = extension.name
            for old in folder.glob(f"eg3d_ops_{target}-*"):  # build/ outlives a change of the sources
                old.unlink()
            print(f"eg3d_ops: building the {target} ops", file=sys.stderr)
            try:
                _build.build(target, folder, say=lambda row: print(f"eg3d_ops: {row}", file=sys.stderr, flush=True))
            except _build.BuildError as error:
                sys.exit(f"eg3d_ops: {error}\nRemedy: fix the cause, or install without them: EG3D_OPS_SKIP_BUILD=1")

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / "eg3d_ops" / "lib"
        return [str(path) for path in folder.glob("*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def get_source_files(self) -> list[str]:
        return []


class Wheel(bdist_wheel):
    """The libraries speak to torch's stable ABI and never to Python's: any Python 3 will do."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        return "py3", "none", platform


setuptools.setup(
    ext_modules=[setuptools.Extension(target, []) for target in buildable_targets()],
    cmdclass={"build_ext": BuildOps, "bdist_wheel": Wheel},
)
