"""The files that users download: pictures, videos, meshes, splats, pages and portraits, with a statement of origin."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.export.encoding import check_video_target, encode
from dreamportrait.export.page import save_page
from dreamportrait.export.portraits import Portrait
from dreamportrait.export.progress import Report
from dreamportrait.export.provenance import write_sidecar
from dreamportrait.export.sheets import enlarged, save_picture
from dreamportrait.export.splats import make_splats
from dreamportrait.geometry.images import to_bytes
from dreamportrait.geometry.paths import orbit

FORMATS = {  # what the page calls them: the end of the file's name
    "PNG: this view": ".png",
    "MP4: turning head": ".mp4",
    "GLB: textured mesh": ".glb",
    "PLY: mesh": "-mesh.ply",
    "PLY: splats": "-splats.ply",
    "SPZ: splats": ".spz",
    "HTML: page that turns the head": ".html",
    "Portrait for dreamportrait": ".safetensors",
}
FRAMES, FPS = 90, 30  # of videos
SMALLEST = 256  # pixels; smaller pictures and frames are enlarged by a whole number


def make_files(
    portrait: Portrait,
    name: str,  # of the file, without its end
    end: str,  # one of FORMATS
    label: Tensor,  # [1, 25] the camera of the picture
    provenance: bool,  # whether files say that they were made by AI
    report: Report,  # raises Forgotten if the user has left
) -> list[tuple[str, bytes]]:
    """Return names and contents: the file, and one beside it if the format cannot hold the statement of origin."""
    with tempfile.TemporaryDirectory(prefix="dreamportrait-") as folder:
        path = Path(folder) / f"{name}{end}"
        claim = portrait.claim if provenance else None
        if end == ".png":
            save_picture(_readable(portrait.render(label).pictures[0]), path, claim=claim)
        elif end == ".mp4":
            encode(_frames(portrait, report), check_video_target(path, FPS), FPS, claim)
        elif end in (".glb", "-mesh.ply"):
            portrait.save_mesh(path, progress=False, provenance=provenance)
        elif end in ("-splats.ply", ".spz"):
            make_splats(portrait.head, report=report).save(path)
            if claim:
                write_sidecar(path, claim)
        elif end == ".html":
            save_page(portrait.head, path, title=portrait.prompt, claim=claim, report=report)
        else:
            portrait.save(path)
        return [(each.name, each.read_bytes()) for each in sorted(Path(folder).iterdir(), key=lambda p: len(p.name))]


@torch.no_grad()
def _frames(portrait: Portrait, report: Report) -> Iterator[Array]:  # [R, R, 3] uint8 each
    cameras = orbit(portrait.head.generator.config, FRAMES)
    for done, camera in enumerate(cameras):
        report(done / len(cameras))
        pixels = to_bytes(portrait.head.view(camera[None]).image.float())[0]
        yield np.asarray(_readable(Image.fromarray(pixels)))


def _readable(picture: Image.Image) -> Image.Image:
    return enlarged(picture, picture.width * -(-SMALLEST // picture.width))
