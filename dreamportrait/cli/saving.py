"""Saves a portrait in the format that a file's name asks for."""

from pathlib import Path
from typing import TYPE_CHECKING

from dreamportrait.core.files import check_free_file
from dreamportrait.export.encoding import VIDEO_SUFFIXES, check_video_target

if TYPE_CHECKING:
    from dreamportrait.export.portraits import Portrait

PORTRAIT, MESHES, SPLATS = ".safetensors", (".glb", ".ply", ".obj"), ".spz"
FPS = 30


def check_saved(path: Path, overwrite: bool) -> None:
    """Raise an error unless a portrait can be saved under this name."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        check_video_target(path, FPS, overwrite)
    elif suffix not in (PORTRAIT, *MESHES, SPLATS):
        raise ValueError(f"{path}: must end in {PORTRAIT}, {', '.join((*MESHES, SPLATS, *VIDEO_SUFFIXES))}")
    else:
        check_free_file(path, overwrite)


def save_as(portrait: "Portrait", path: Path, overwrite: bool, provenance: bool) -> None:
    """Save a portrait as a portrait's file, a mesh, splats or a film, by the suffix of the path."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        portrait.save_video(path, fps=FPS, overwrite=overwrite, provenance=provenance)
    elif suffix == SPLATS:
        portrait.save_splats(path, overwrite=overwrite, provenance=provenance)
    elif suffix in MESHES:
        portrait.save_mesh(path, overwrite=overwrite, provenance=provenance)
    else:
        portrait.save(path, overwrite)
