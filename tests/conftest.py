"""Shared fixtures: skipping of GPU tests, the compiled CPU library, and a clean backend after each test."""

import contextlib
import gc
import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:  # set before PyTorch is imported; threads of several workers block each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_ops import Fresh

import eg3d_ops
from dreamportrait.core.precision import exact_float32
from eg3d_ops import _backend, _build

# A shell without job control ignores SIGINT for commands in the background, and nohup ignores SIGHUP. Processes that
# tests start would inherit that, and signals would not end them.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # `item.keywords` also has the names of folders
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection() -> None:
    gc.disable()  # until all tests are imported


def pytest_collection_finish() -> None:
    """Leave all that was imported out of the collection of garbage, which took a tenth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _exact_float32() -> None:
    """Forbid TF32, as programs do: its errors exceed every tolerance of the tests."""
    exact_float32()


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skip the test if the tools for compiling the CPU ops are missing."""
    try:
        _build.check_tools("cpu")
    except _build.BuildError as error:
        pytest.skip(f"no compiled CPU ops: {error}")


@pytest.fixture(scope="session")
def compiled_cpu(compiler: None) -> Path:
    """Build the library of the CPU ops if needed and return its path.

    If the tools are installed, a failed build fails the test: skipping would hide broken sources.
    """
    _backend.use_compiled("compiled", torch.device("cpu"))
    return eg3d_ops.loaded_libraries()["cpu"]


@pytest.fixture(params=["reference", "compiled"])
def impl(request: pytest.FixtureRequest) -> str:
    """Return each implementation in turn; skip the compiled one if its tools are missing."""
    if request.param == "compiled":
        request.getfixturevalue("compiled_cpu")
    return request.param


@pytest.fixture(params=_backend.CPU_ISAS)
def isa(request: pytest.FixtureRequest, compiled_cpu: Path) -> str:
    """Select each instruction set in turn and return it; skip those that the processor lacks."""
    try:
        _backend.set_cpu_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(autouse=True)
def _restored_backend() -> Iterator[None]:
    """Restore the implementation and the instruction set after each test."""
    isa = eg3d_ops.cpu_isa() if "cpu" in eg3d_ops.loaded_libraries() else None
    yield
    _backend._mode = None
    if isa:
        _backend.set_cpu_isa(isa)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fresh:
    """Return a backend that has loaded nothing yet and uses stand-in sources and its own folders."""
    for name in [name for name in os.environ if name.startswith("EG3D_OPS")] + ["LOCAL_RANK", "CXX"]:
        monkeypatch.delenv(name, raising=False)
    fresh = Fresh(tmp_path)
    monkeypatch.setattr(_build, "CSRC", fresh.csrc)
    monkeypatch.setattr(_build, "PACKAGE", tmp_path / "package")
    monkeypatch.setenv("EG3D_OPS_CACHE", str(fresh.cache))
    monkeypatch.setattr(_backend, "_loaded", {})
    monkeypatch.setattr(_backend, "_failed", {})
    _backend._say_once.cache_clear()
    return fresh


@pytest.fixture
def single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn autocast off: processors without bfloat16 emulate it, ten times slower. Other tests use it."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
