"""A stand-in for the real C++ sources. It builds in a second and registers nothing, so that many can be loaded.

It includes a header of torch and links to torch, as the real sources do.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SOURCE = """
#include <torch/headeronly/version.h>
static int isa = 0;
extern "C" __attribute__((visibility("default"))) int eg3d_ops_cpu_isa(int request) {
  if (request > 1) return -1;  // as on a processor without AVX-512
  return request < 0 ? isa : isa = request;
}
"""
CPU = torch.device("cpu")


def write_sources(folder: Path, source: str = SOURCE) -> Path:
    """Fill `folder` like csrc/ and return it."""
    (folder / "cpu").mkdir(parents=True, exist_ok=True)
    (folder / "cpu" / "tiny.cpp").write_text(source)
    return folder


def write_compiler(path: Path, script: str) -> Path:
    """Write a shell script as a stand-in for the compiler and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def start_python(code: str, csrc: Path, **env: str) -> subprocess.Popen[str]:
    """Start a process that runs `code` after `from eg3d_ops import _backend, _build`, with the sources at `csrc`."""
    prelude = f"from pathlib import Path\nfrom eg3d_ops import _backend, _build\n_build.CSRC = Path({str(csrc)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that it can be killed with its children
    )


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "nonesuch++")


class Fresh:
    """Folders of a backend that has loaded nothing yet."""

    def __init__(self, root: Path) -> None:
        self.csrc = write_sources(root / "csrc")
        self.prebuilt = root / "package" / "lib"
        self.cache = root / "cache"

    def cached(self) -> list[str]:
        """Return the names of the files in the cache, except for locks."""
        return sorted(path.name for path in self.cache.rglob("*") if path.is_file() and path.suffix != ".lock")
