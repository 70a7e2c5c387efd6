"""Meshes of heads: the surface of the density field, coloured from rendered views.

mesh = extract(portrait.head)
mesh.save("head.glb")
"""

import numpy as np
from numpy import ndarray as Array

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.mesh_field import make_solid
from dreamportrait.export.mesh_files import Mesh, Texture
from dreamportrait.export.mesh_surface import surface, vertex_normals
from dreamportrait.export.mesh_unwrap import unwrap
from dreamportrait.export.mesh_views import HeadViews, look_at_head, mesh_cameras
from dreamportrait.export.progress import Report, silent
from dreamportrait.export.texture import bake, vertex_colors
from dreamportrait.geometry.cameras import Cameras, camera_labels
from eg3d_ops._checks import check_int, check_number

__all__ = ["Mesh", "Texture", "extract"]

METRES = 0.5  # of one unit of the world: heads of models for aligned portraits become 20 to 25 cm high
RESOLUTIONS = (16, 512)
TEXTURES = (64, 8192)


def extract(
    head: Planes,  # of one head
    resolution: int | None = None,  # samples along an edge of the box. None = twice as many as the planes have
    level: float | None = None,  # density at the surface. None = chosen so that silhouettes agree with the pictures
    *,
    texture: bool = True,  # False: only the vertices have colours
    texture_size: int | None = None,  # pixels, in width and height. None = for the detail that the pictures have
    cameras: Cameras | None = None,  # of the pictures that give silhouettes and colours; the first from the front
    report: Report = silent,
) -> Mesh:
    """Make a mesh of a head. Backgrounds, floating bits and cavities are left out.

    No view shows the back of the head. Where the generator draws a background, the back is a rounded cap, in the
    colours around it. Raises ValueError if the head is empty.
    """
    c = head.generator.config
    resolution = default_resolution(c) if resolution is None else _within("resolution", resolution, RESOLUTIONS)
    size = default_texture_size(c) if texture_size is None else _within("texture_size", texture_size, TEXTURES)
    if len(head) != 1:
        raise ValueError(f"head holds {len(head)} heads; choose one of them, for example head[0]")
    if level is not None and check_number("level", level) <= 0:
        raise ValueError(f"level={level}: must be positive; it is a density, and 0 is empty space")
    views = look_at_head(head, mesh_cameras(c) if cameras is None else camera_labels(cameras))
    report(0.4)
    solid = make_solid(head, views, resolution, level)
    report(0.6)
    positions, faces = surface(solid)
    normals = vertex_normals(positions, faces)
    colors = vertex_colors(views, positions, normals)
    report(0.8)
    painted = _paint(views, positions, normals, faces, colors, size) if texture else None
    return Mesh(positions * np.float32(METRES), normals, faces, _to_bytes(colors), painted, solid.level)


def default_resolution(config: GeneratorConfig) -> int:
    return min(max(2 * config.plane_resolution, 64), 256)


def default_texture_size(config: GeneratorConfig) -> int:
    """Return four times the width of the pictures: a texture holds six views, each somewhat finer than a picture."""
    return min(max(4 * config.image_resolution, 512), 4096)


def _paint(views: HeadViews, positions: Array, normals: Array, faces: Array, colors: Array, size: int) -> Texture:
    atlas = unwrap(positions, normals, faces, size)
    pixels = bake(views, atlas, positions, normals, colors, size)
    return Texture(pixels, atlas.places / np.float32(size), atlas.vertices, atlas.faces)


def _to_bytes(colors: Array) -> Array:
    rounded: Array = (colors * 255 + 0.5).clip(0, 255).astype(np.uint8)
    return rounded


def _within(name: str, value: int, limits: tuple[int, int]) -> int:
    if not limits[0] <= check_int(name, value) <= limits[1]:
        raise ValueError(f"{name}={value}: must lie between {limits[0]} and {limits[1]}")
    return value
