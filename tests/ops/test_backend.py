"""Tests of which implementation runs: every path of the choice, with stand-in sources (tiny_ops)."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_ops import CPU, SOURCE, Fresh, no_compiler

import eg3d_ops
from eg3d_ops import _backend, _build


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ----- Import ---------------------------------------------------------------------------------------------


@pytest.mark.lengthy
def test_import_compiles_and_loads_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, json, eg3d_ops\n"
        "before = 'dreamportrait' in sys.modules\n"
        "import dreamportrait.eg3d.conv, dreamportrait.geometry.rays\n"
        "print(json.dumps([before, list(eg3d_ops.loaded_libraries())]))\n"
    )
    env = {**os.environ, "HOME": str(tmp_path), "EG3D_OPS_CACHE": str(tmp_path / "cache"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, []]
    assert list(tmp_path.iterdir()) == []


def test_functions_are_not_hidden_by_modules_of_their_name() -> None:
    import eg3d_ops.bias_act  # noqa: F401  (which binds the module to the name, the first time)

    for name in eg3d_ops.__all__:
        assert not isinstance(getattr(eg3d_ops, name), ModuleType), name


# ----- The order: prebuilt, built, reference --------------------------------------------------------------


def test_prebuilt_comes_first(fresh: Fresh, compiler: None, caplog: pytest.LogCaptureFixture) -> None:
    library = _build.build("cpu", fresh.prebuilt)
    with caplog.at_level(logging.INFO, "eg3d_ops"):
        assert _backend.use_compiled("auto", CPU)
        assert _backend.use_compiled("auto", CPU)
    assert eg3d_ops.loaded_libraries() == {"cpu": library}
    assert caplog.messages == [f"cpu: compiled ops from {library}"]
    assert not fresh.cache.exists()


def test_stale_prebuilt_is_ignored(fresh: Fresh, compiler: None) -> None:
    stale = _build.build("cpu", fresh.prebuilt)
    (fresh.csrc / "cpu" / "tiny.cpp").write_text(SOURCE + "// changed since\n")
    assert _backend.use_compiled("auto", CPU)
    assert eg3d_ops.loaded_libraries()["cpu"].is_relative_to(fresh.cache)
    _backend.set_backend("prebuilt")
    with pytest.raises(RuntimeError, match="This process uses .* already; choose before the first use"):
        _backend.use_compiled("auto", CPU)
    _backend._loaded.clear()
    _backend.set_backend("prebuilt")
    with pytest.raises(RuntimeError, match=f"found only {stale.name}, made from other sources or for other devices"):
        _backend.use_compiled("auto", CPU)


def test_unloadable_prebuilt_gives_way_to_a_build(fresh: Fresh, compiler: None) -> None:
    fresh.prebuilt.mkdir(parents=True)
    (fresh.prebuilt / _build.library_name("cpu")).write_text("not a library")
    assert _backend.use_compiled("auto", CPU)
    assert eg3d_ops.loaded_libraries()["cpu"].is_relative_to(fresh.cache)


def test_build_then_cache(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _backend.use_compiled("auto", CPU)
    library = eg3d_ops.loaded_libraries()["cpu"]
    assert library.is_relative_to(fresh.cache)
    assert fresh.cached() == [library.name]
    no_compiler(monkeypatch)  # the next process needs no compiler
    _backend._loaded.clear()
    assert _backend.use_compiled("auto", CPU)
    assert eg3d_ops.loaded_libraries()["cpu"] == library


def test_no_compiler_means_the_twin_and_one_warning(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_compiler(monkeypatch)
    with pytest.raises(RuntimeError, match="demanded"):
        _backend.use_compiled("compiled", CPU)
    assert warnings_in(caplog) == []  # an error needs no warning; the first silent fallback does
    assert not _backend.use_compiled("auto", CPU)
    assert not _backend.use_compiled("auto", CPU)
    (message,) = warnings_in(caplog)
    assert message.startswith("cpu: using the PyTorch implementations, which are slower. Tried:")
    assert "prebuilt: no eg3d_ops_cpu-" in message
    assert "build: CXX='nonesuch++' names no program" in message


@pytest.mark.parametrize(("mode", "impl"), [("auto", "compiled"), ("build", "auto"), ("reference", "compiled")])
def test_forced_compiled_names_every_cause_and_the_remedy(
    mode: str, impl: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_compiler(monkeypatch)
    eg3d_ops.set_backend(mode)
    with pytest.raises(RuntimeError) as caught:
        _backend.use_compiled(impl, CPU)
    message = str(caught.value)
    assert (
        f"compiled eg3d_ops for 'cpu' demanded (impl={impl!r}, backend={'build' if mode == 'build' else 'auto'!r})"
        in message
    )
    assert ("prebuilt: no eg3d_ops_cpu-" in message) == (mode != "build")
    assert "build: CXX='nonesuch++' names no program; set it" in message
    assert message.endswith("Remedy: fix the cause, or set EG3D_OPS=reference to use the PyTorch implementations.")


def test_forced_prebuilt_without_one(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EG3D_OPS", "prebuilt")
    with pytest.raises(RuntimeError, match=r"no eg3d_ops_cpu-.* it has none; see docs/eg3d_ops.md"):
        _backend.use_compiled("auto", CPU)
    assert not fresh.cache.exists()


def test_forced_build_ignores_the_prebuilt(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _build.build("cpu", fresh.prebuilt)
    monkeypatch.setenv("EG3D_OPS", "build")
    assert _backend.use_compiled("auto", CPU)
    assert eg3d_ops.loaded_libraries()["cpu"].is_relative_to(fresh.cache)


def test_forced_reference(fresh: Fresh, compiler: None, caplog: pytest.LogCaptureFixture) -> None:
    _build.build("cpu", fresh.prebuilt)
    eg3d_ops.set_backend("reference")
    with caplog.at_level(logging.INFO, "eg3d_ops"):
        assert not _backend.use_compiled("auto", CPU)
        assert not _backend.use_compiled("auto", CPU)
    assert caplog.messages == ["cpu: PyTorch implementations, as the backend 'reference' demands"]
    assert eg3d_ops.loaded_libraries() == {}
    assert _backend.use_compiled("compiled", CPU)  # the argument of the call takes precedence
    assert not _backend.use_compiled("reference", CPU)


def test_call_beats_process_beats_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EG3D_OPS", "reference")
    assert eg3d_ops.backend() == "reference"
    eg3d_ops.set_backend("auto")
    assert eg3d_ops.backend() == "auto"
    assert not _backend.use_compiled("reference", CPU)


def test_set_backend_tries_again(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        no_compiler(patch)
        assert not _backend.use_compiled("auto", CPU)
    assert not _backend.use_compiled("auto", CPU)  # the search is not repeated at every call
    eg3d_ops.set_backend("auto")
    assert _backend.use_compiled("auto", CPU)


def test_bad_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="impl='cuda': must be one of auto, compiled, reference"):
        _backend.use_compiled("cuda", CPU)
    with pytest.raises(ValueError, match="mode='fast': must be one of auto, prebuilt, build, reference"):
        eg3d_ops.set_backend("fast")
    monkeypatch.setenv("EG3D_OPS", "ref")
    with pytest.raises(ValueError, match="environment variable EG3D_OPS='ref': must be one of auto, "):
        eg3d_ops.backend()


def test_other_devices(fresh: Fresh, caplog: pytest.LogCaptureFixture) -> None:
    assert not _backend.use_compiled("auto", torch.device("meta"))  # only shapes, so no warning
    assert warnings_in(caplog) == []
    assert not _backend.use_compiled("auto", torch.device("mps"))
    assert "mps: using the PyTorch implementations" in warnings_in(caplog)[0]
    with pytest.raises(RuntimeError, match="No compiled ops exist for device type 'mps', only for cpu and cuda"):
        _backend.use_compiled("compiled", torch.device("mps"))


def test_first_use_from_many_threads(fresh: Fresh, compiler: None, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(_backend.use_compiled("auto", CPU))) for _ in range(8)]
    with caplog.at_level(logging.INFO, "eg3d_ops"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [True] * 8
    assert sum("compiled ops from" in message for message in caplog.messages) == 1


@pytest.mark.lengthy
def test_choice_is_a_constant_of_compiled_code(fresh: Fresh) -> None:
    """torch.compile traces only the chosen implementation, no access to locks, files or the environment."""
    eg3d_ops.set_backend("reference")
    x = torch.tensor([-1.0, 2.0])
    compiled = torch.compile(lambda x: eg3d_ops.bias_act(x, act="relu", gain=1), backend="eager", fullgraph=True)
    assert compiled(x).tolist() == [0.0, 2.0]


# ----- GPU architectures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archs", "device", "runs"),
    [
        (["80", "90"], "80", True),
        (["80", "90"], "86", True),  # the binary for 8.0
        (["80", "90"], "75", False),
        (["80", "90"], "100", True),  # the PTX for 9.0
        (["80", "90"], "120", True),
        (["86"], "80", False),
        (["86"], "89", True),
        (["90"], "89", False),
        (["75", "100"], "90", False),  # the binaries are for 7.x and 10.x, the PTX for 10.0 and later
    ],
)
def test_which_devices_a_library_covers(archs: list[str], device: str, runs: bool) -> None:
    assert _backend._covers(archs, device) == runs


def test_prebuilt_for_cuda_must_cover_every_device(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh.csrc / "cuda").mkdir()
    fresh.prebuilt.mkdir(parents=True)
    library = fresh.prebuilt / _build.library_name("cuda", ["80", "90"])
    library.touch()
    monkeypatch.setattr(_backend, "_device_archs", lambda: ["80", "86", "90"])
    assert _backend._prebuilt("cuda") == library
    monkeypatch.setattr(_backend, "_device_archs", lambda: ["75", "90"])
    with pytest.raises(_build.BuildError, match=f"found only {library.name}"):
        _backend._prebuilt("cuda")


def test_a_cuda_library_whose_kernels_do_not_run_is_passed_over(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A build for a newer driver loads, and then every launch fails."""

    def fail(device_type: str) -> None:
        raise RuntimeError("CUDA driver version is insufficient for CUDA runtime version")

    monkeypatch.setattr(_backend, "_prebuilt", lambda device_type: fresh.prebuilt / "prebuilt.so")
    monkeypatch.setattr(_backend, "_built", lambda device_type: fresh.cache / "built.so")
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    monkeypatch.setattr(_backend, "launch_smallest", fail)
    assert not _backend.use_compiled("auto", torch.device("cuda"))
    assert eg3d_ops.loaded_libraries() == {}
    assert "cuda: using the PyTorch implementations" in warnings_in(caplog)[0]
    for kind in ("prebuilt", "build"):
        assert f"{kind}: it loads, but its kernels do not run here: CUDA driver version is" in warnings_in(caplog)[0]
    with pytest.raises(RuntimeError, match="demanded .* but not available"):
        _backend.use_compiled("compiled", torch.device("cuda"))


def test_the_library_that_was_built_here_comes_after_one_that_does_not_run(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def launch(device_type: str) -> None:
        if loaded[-1] == "prebuilt.so":
            raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(_backend, "_prebuilt", lambda device_type: Path("prebuilt.so"))
    monkeypatch.setattr(_backend, "_built", lambda device_type: Path("built.so"))
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(_backend, "launch_smallest", launch)
    assert _backend.use_compiled("auto", torch.device("cuda"))
    assert eg3d_ops.loaded_libraries() == {"cuda": Path("built.so")} and loaded == ["prebuilt.so", "built.so"]


# ----- The instruction set --------------------------------------------------------------------------------


def test_instruction_set(fresh: Fresh, compiler: None) -> None:
    assert eg3d_ops.cpu_isa() == "portable"  # loads the library
    _backend.set_cpu_isa("avx2")
    assert eg3d_ops.cpu_isa() == "avx2"
    with pytest.raises(ValueError, match="isa='avx512': this processor or this build does not have it"):
        _backend.set_cpu_isa("avx512")
    with pytest.raises(ValueError, match="isa='sse': must be one of portable, avx2, avx512"):
        _backend.set_cpu_isa("sse")
    assert eg3d_ops.cpu_isa() == "avx2"


def test_instruction_set_from_the_environment(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EG3D_OPS_CPU", "avx512")
    for _ in range(2):  # the error comes every time, not only the first time
        with pytest.raises(ValueError, match="environment variable EG3D_OPS_CPU='avx512': this processor"):
            _backend.use_compiled("auto", CPU)
    monkeypatch.setenv("EG3D_OPS_CPU", "avx2")
    assert eg3d_ops.cpu_isa() == "avx2"


def test_real_library_honours_the_instruction_set(compiled_cpu: Path) -> None:
    _backend.set_cpu_isa("portable")
    assert eg3d_ops.cpu_isa() == "portable"
