"""The command `doctor`, which says what works on this machine and what to do about the rest."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

import click

from dreamportrait import __version__
from dreamportrait.core.files import cache_folder
from dreamportrait.systems.dreamportrait.names import MINI, locate_portrait
from dreamportrait.weights.registry import NAMES, locate
from dreamportrait.weights.seals import verify

EXTRAS = {  # module: what it is for, and how it is installed
    "av": ("MP4 and WEBM videos", "pip install 'dreamportrait[video]'"),
    "viser": ("the viewer in the browser", "pip install 'dreamportrait[view]'"),
    "c2pa": ("signed statements of origin", "pip install 'dreamportrait[c2pa]'"),
    "ai_edge_litert": ("finding faces in photographs", "pip install 'dreamportrait[landmarks]'"),
}
PACKAGES = {"c2pa": "c2pa-python", "ai_edge_litert": "ai-edge-litert"}  # modules whose package has another name
_NAME = 2 + max(map(len, (*NAMES, *EXTRAS)))  # width of the column of names
LEAST_SPACE = 2e9  # bytes; below that, caches of data sets and checkpoints fail soon


@dataclass(frozen=True)
class Finding:
    name: str
    state: str  # ok, note (something optional is missing) or broken
    detail: str
    remedy: str = ""


def findings() -> Iterator[Finding]:
    """Yield what was found, one thing after the other."""
    yield Finding("dreamportrait", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield _guarded("torch", _torch, "install PyTorch again: pip install --force-reinstall torch torchvision")
    yield _guarded("compiled ops", _ops, "install a C++ compiler (Debian: apt install g++), or go on without: slower")
    for name in (*NAMES, MINI):
        yield _guarded(name, lambda name=name: _weights(name), "install dreamportrait again")  # type: ignore[misc]
    for module, (use, remedy) in EXTRAS.items():
        there = util.find_spec(module) is not None
        version = metadata.version(PACKAGES.get(module, module)) if there else ""
        yield (
            Finding(module, "ok", f"{version}, for {use}")
            if there
            else Finding(module, "note", f"not installed; it is for {use}", remedy)
        )
    yield from _folders()


def _guarded(name: str, check: Callable[[], Finding], remedy: str) -> Finding:
    try:
        return check()
    except Exception as error:  # whatever is wrong with this machine is the result
        return Finding(name, "broken", f"{type(error).__name__}: {error}", remedy)


def _torch() -> Finding:
    import torch

    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return Finding("torch", "ok", f"{torch.__version__}, {built}, no GPU is visible; {threads}")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda}, {names}; {threads}")


def _ops() -> Finding:
    import torch

    import eg3d_ops

    device = "cuda" if torch.cuda.is_available() else "cpu"
    eg3d_ops.bias_act(torch.zeros(1, 1, 2, 2, device=device), torch.zeros(1, device=device))  # finds or builds them
    found = eg3d_ops.loaded_libraries().get(device)
    if found is None:
        remedy = "install a C++ compiler, and run this again" if device == "cpu" else "install the CUDA toolkit"
        return Finding("compiled ops", "note", f"none for {device}; the slower PyTorch twins are used", remedy)
    return Finding("compiled ops", "ok", f"{device}: {found}")


def _weights(name: str) -> Finding:
    folder = locate_portrait(name) if name == MINI else locate(name)
    verify(folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Finding(name, "ok", f"complete, {size / 1e6:.1f} MB")


def _folders() -> Iterator[Finding]:
    hub = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    ops = Path(os.environ.get("EG3D_OPS_CACHE", Path.home() / ".cache" / "eg3d_ops"))
    for name, folder in (("cache", cache_folder()), ("ops cache", ops), ("hub cache", hub)):
        place = folder
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK):
            yield Finding(name, "broken", f"{folder} cannot be written", f"change its rights, or move it: see {name}")
            continue
        free = shutil.disk_usage(place).free
        state = "ok" if free > LEAST_SPACE else "note"
        yield Finding(name, state, f"{folder}, {free / 1e9:.1f} GB free", "" if state == "ok" else "free some space")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool) -> None:
    """Say what works on this machine: PyTorch, GPU, compiled operations, weights, caches, space, optional packages.

    The exit code is 1 if something is broken. What is optional and missing does not count.

    \b
    Examples:
        dreamportrait doctor
        dreamportrait doctor --json
    """
    found = []
    for each in findings():
        found.append(each)
        if not as_json:
            click.echo(f"{each.state:7}{each.name:{_NAME}}{each.detail}")
            if each.remedy:
                click.echo(f"{'':{7 + _NAME}}-> {each.remedy}")
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    if any(each.state == "broken" for each in found):
        sys.exit(1)
