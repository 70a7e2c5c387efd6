"""Tests of libraries built at first use: which process builds, which ones wait, failures and killed builders."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_ops import Fresh, no_compiler, start_python, write_compiler

from eg3d_ops import _build, _cache


def test_cache_that_cannot_be_written(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.cache.write_text("a file where the folder should be")
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(
            _build.BuildError, match=r"cannot write to .*/cache/.*; set EG3D_OPS_CACHE to another folder"
        ):
            _cache.built("cpu", None)


def test_user_without_a_home(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EG3D_OPS_CACHE")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(_build.BuildError, match="home directory.; set EG3D_OPS_CACHE to a folder"):
        _cache.built("cpu", None)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_bad_lock_timeout(text: str, fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EG3D_OPS_LOCK_TIMEOUT", text)
    with pytest.raises(ValueError, match=f"EG3D_OPS_LOCK_TIMEOUT='{text}': must be a number of seconds"):
        _cache.built("cpu", None)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the process and everything that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_lock_held_elsewhere(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _cache.cache_folder()
    folder.mkdir(parents=True)
    lock = folder / (_build.library_name("cpu") + ".lock")
    code = (
        f"import filelock, time\nwith filelock.FileLock({str(lock)!r}):\n  print('held', flush=True)\n  time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        monkeypatch.setenv("EG3D_OPS_LOCK_TIMEOUT", "0.1")
        with pytest.raises(
            _build.BuildError, match=r"another process held .*\.lock for 0.1 s; .* EG3D_OPS_LOCK_TIMEOUT"
        ):
            _cache.built("cpu", None)
    finally:
        kill(holder)
    assert _cache.built("cpu", None).exists()  # the lock is released when its holder dies


@pytest.mark.lengthy
def test_killed_builder_leaves_nothing_in_the_way(
    fresh: Fresh, compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = write_compiler(tmp_path / "bin" / "stuck++", f"touch {tmp_path}/started; exec sleep 60")
    builder = start_python(
        "_backend.use_compiled('auto', __import__('torch').device('cpu'))", fresh.csrc, CXX=str(stuck)
    )
    try:
        wait_until((tmp_path / "started").exists, builder)
        builder.kill()  # its compiler keeps running
        builder.wait()
        monkeypatch.setenv("EG3D_OPS_LOCK_TIMEOUT", "10")
        library = _cache.built("cpu", None)
    finally:
        kill(builder)
    assert fresh.cached() == [library.name]
    assert not [path for path in library.parent.iterdir() if path.is_dir()]  # no scratch folder of the killed build


@pytest.mark.lengthy
def test_two_processes_build_once(fresh: Fresh, compiler: None, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    counting = write_compiler(tmp_path / "bin" / "c++", f'echo x >> {log}; sleep 0.3; exec {_build.find_cxx()} "$@"')
    code = (
        "import sys, time, torch\n"
        f"print('ready', flush=True)\nwhile not Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.001)\n"
        "_backend.use_compiled('compiled', torch.device('cpu'))\n"
        "print(_backend.loaded_libraries()['cpu'])\n"
    )
    racers = [start_python(code, fresh.csrc, CXX=str(counting)) for _ in range(2)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    outputs = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert outputs[0] == outputs[1] == str(_cache.built("cpu", None))
    assert log.read_text() == "x\n" * 2  # one file compiled, one library linked


# ----- Several ranks on one machine -----------------------------------------------------------------------


@pytest.mark.lengthy
def test_other_ranks_wait_for_rank_0(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    folder = _cache.cache_folder()
    rank_0 = threading.Timer(0.3, _build.build, ("cpu", folder))
    rank_0.start()
    assert _cache.built("cpu", None) == folder / _build.library_name("cpu")
    rank_0.join()


def test_other_ranks_never_build(fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("EG3D_OPS_LOCK_TIMEOUT", "0.1")
    with pytest.raises(_build.BuildError, match=r"local rank 0 did not deliver .* within 0.1 s; raise EG3D_OPS_LOCK"):
        _cache.built("cpu", None)
    assert fresh.cached() == []


def test_other_ranks_learn_why_rank_0_failed(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    no_compiler(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(_build.BuildError, match="CXX='nonesuch"):
        _cache.built("cpu", None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(
        _build.BuildError, match=r"local rank 0 could not build it: CXX='nonesuch\+\+' names no program"
    ):
        _cache.built("cpu", None)


def test_failure_of_an_earlier_launch_does_not_count(
    fresh: Fresh, compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with monkeypatch.context() as patch:
        no_compiler(patch)
        with pytest.raises(_build.BuildError):
            _cache.built("cpu", None)
    monkeypatch.setattr(_cache, "_STARTED", time.time() + 3600)  # as if this process started in an hour
    monkeypatch.setenv("EG3D_OPS_LOCK_TIMEOUT", "0.1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(_build.BuildError, match="local rank 0 did not deliver"):
        _cache.built("cpu", None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    library = _cache.built("cpu", None)
    assert fresh.cached() == [library.name]  # a successful build removes the failure notice
