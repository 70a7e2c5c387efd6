"""Films a head: renders it from every camera of a path, and writes MP4, WEBM or GIF.

save_video(portrait.head, "head.mp4", cameras=paths.orbit(config, frames=90), claim=claim)
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from dreamportrait.eg3d.planes import Planes, view_notes
from dreamportrait.export.encoding import check_video_target, encode
from dreamportrait.export.provenance import Claim
from dreamportrait.export.sheets import enlarged
from dreamportrait.geometry.cameras import Cameras, camera_labels
from dreamportrait.geometry.images import to_bytes
from eg3d_ops._checks import check_int

SMALLEST = 256  # pixels; smaller frames are enlarged by a whole number to at least this
BATCH = 4  # frames rendered at once; each needs a copy of the planes

_log = logging.getLogger(__name__)


class Video(NamedTuple):
    """What was written."""

    frames: int
    fps: int
    size: int  # width and height in pixels
    enlarged: int  # the whole number that rendered frames were enlarged by; 1 = not


def save_video(
    head: Planes,  # one head
    path: str | Path,  # .mp4, .webm or .gif
    *,
    cameras: Cameras,  # [T, 25] one frame each, e.g. from geometry.paths
    claim: Claim | None,  # what the file says about its origin. None = nothing
    fps: int = 30,
    resolution: int | None = None,  # of the image before super-resolution. None = the generator's
    progress: bool | None = None,  # None: a bar on terminals only
    overwrite: bool = False,
) -> Video:
    """Render a head from each camera and write the frames as a video. GIFs repeat for ever.

    Frames of less than 256 pixels are enlarged smoothly, because players show such videos as stamps.
    """
    if len(head) != 1:
        raise ValueError(f"{len(head)} heads: a video shows one; choose it with heads[i]")
    labels = camera_labels(cameras)
    path = check_video_target(path, check_int("fps", fps, 1), overwrite)
    for note in view_notes(head.generator, labels, resolution).values():
        _log.warning(note)
    return _write(_frames(head, labels, resolution), len(labels), path, fps, claim, progress)


def save_change(
    heads: Iterable[Planes],  # one for each frame, made one after the other
    path: str | Path,  # .mp4, .webm or .gif
    *,
    cameras: Cameras,  # [T, 25] one for each head
    claim: Claim | None,
    fps: int = 30,
    progress: bool | None = None,
    overwrite: bool = False,
) -> Video:
    """Render each head from its camera and write the frames as a video, in which one head turns into another."""
    labels = camera_labels(cameras)
    path = check_video_target(path, check_int("fps", fps, 1), overwrite)
    pairs = zip(heads, labels, strict=True)
    frames = (frame for head, camera in pairs for frame in _frames(head, camera[None], None))
    return _write(frames, len(labels), path, fps, claim, progress)


def _write(
    frames: Iterator[Array], total: int, path: Path, fps: int, claim: Claim | None, progress: bool | None
) -> Video:
    first = next(frames)
    factor = -(-SMALLEST // len(first))
    hidden = None if progress is None else not progress
    with tqdm(total=total, unit=" frames", leave=False, disable=hidden) as bar:
        encode(_counted(chain([first], frames), factor, bar), path, fps, claim)
    return Video(total, fps, len(first) * factor, factor)


@torch.no_grad()
def _frames(head: Planes, cameras: Tensor, resolution: int | None) -> Iterator[Array]:
    """Yield frames [R, R, 3] of uint8."""
    for part in cameras.to(head.planes.device).split(BATCH):
        n = len(part)
        copies = Planes(head.generator, head.planes.expand(n, -1, -1, -1, -1), head.ws.expand(n, -1, -1))
        yield from to_bytes(copies.view(part, resolution).image.float())


def _counted(frames: Iterable[Array], factor: int, bar: tqdm) -> Iterator[Array]:
    """Enlarge frames, and count them on a progress bar."""
    for frame in frames:
        yield np.asarray(enlarged(Image.fromarray(frame), len(frame) * factor))
        bar.update()
