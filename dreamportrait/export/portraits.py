"""Portraits: the prompt, the seed, a head that can be rendered from any side, and the requested views of it."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.export.portrait_file import StoredPortrait, read_portrait_file, write_portrait_file
from dreamportrait.export.progress import progress_bar
from dreamportrait.export.provenance import Claim, write_sidecar
from dreamportrait.export.sheets import Row, depth_to_images, draw_sheet, save_picture
from dreamportrait.export.video import Video, save_video
from dreamportrait.geometry.cameras import Cameras, camera_labels, intrinsics_from_fov
from dreamportrait.geometry.paths import along
from dreamportrait.geometry.views import Views

if TYPE_CHECKING:
    from dreamportrait.export.mesh_files import Mesh
    from dreamportrait.export.page import Page
    from dreamportrait.export.splat_head import SplatHead
    from dreamportrait.export.splats import Splats

NOBODY = Claim()  # names the program and no model


@dataclass(frozen=True, eq=False, repr=False)
class Portrait:
    """One head with its prompt, its seed and its requested views."""

    prompt: str
    seed: int | None  # None = drawn from a torch.Generator, or mixed from several
    head: Planes  # tri-planes of one head; can render further views
    views: Views
    claim: Claim = NOBODY  # what files of it say about their origin

    @property
    def planes(self) -> Tensor:  # [3, C, H, W]
        return self.head.planes[0]

    @property
    def ws(self) -> Tensor:  # [num_ws, w_dim]
        return self.head.ws[0]

    @property
    def images(self) -> Array:  # [V, R, R, 3] uint8
        return self.views.images

    @property
    def pictures(self) -> list[Image.Image]:
        return self.views.pictures

    @property
    def colors(self) -> Tensor:  # [V, 3, R, R] in -1 .. 1
        return self.views.colors

    @property
    def depth(self) -> Tensor:  # [V, 1, r, r]
        return self.views.depth

    def view(self, yaw: float = 0.0, pitch: float = 0.0, resolution: int | None = None) -> Views:
        """Render one view from `yaw` degrees to the right of the front and `pitch` degrees above it.

        Right is the viewer's right when facing the head.
        """
        return self.render(yaw=yaw, pitch=pitch, resolution=resolution)

    def render(
        self,
        cameras: Cameras | None = None,  # [25] or [V, 25], in place of the angles
        resolution: int | None = None,  # of the image before super-resolution. None = the generator's
        *,
        yaw: float
        | list[float]
        | tuple[float, ...]
        | None = None,  # degrees to the right of the front; several give several views
        pitch: float | None = None,  # degrees above
        fov: float | None = None,  # degrees, diagonal; smaller is closer. None = that of the training pictures
    ) -> Views:
        """Render a view from each camera, or from each yaw."""
        if cameras is None:
            labels = self._around(0.0 if yaw is None else yaw, 0.0 if pitch is None else pitch, fov)
        elif given := [name for name, value in {"yaw": yaw, "pitch": pitch, "fov": fov}.items() if value is not None]:
            raise ValueError(f"cameras and {', '.join(given)} are given; choose one of them")
        else:
            labels = camera_labels(cameras)
        (views,) = self.head.views(labels, resolution)
        return views

    def _around(
        self, yaw: float | list[float] | tuple[float, ...], pitch: float, fov: float | None
    ) -> Tensor:  # [V, 25]
        angles = yaw if isinstance(yaw, list | tuple) else [yaw]
        if not angles:
            raise ValueError("yaw is an empty list; give at least one angle")
        labels = self.head.generator.config.around(angles, pitch)
        if fov is not None:
            labels[:, 16:] = intrinsics_from_fov(fov).flatten()
        return labels

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Save the head in a .safetensors file that `load` reads, with prompt, seed and the hash of its generator."""
        stored = StoredPortrait(self.prompt, self.seed, self.planes, self.ws, self.views.cameras)
        write_portrait_file(path, stored, self.head.generator, overwrite)

    @classmethod
    def load(cls, path: str | Path, generator: TriPlaneGenerator, claim: Claim = NOBODY) -> "Portrait":
        """Load a portrait that this generator made, and render its views. See also the pipeline's load_portrait."""
        stored = read_portrait_file(path, generator)
        device = next(generator.parameters()).device
        head = Planes(generator, stored.planes[None].to(device), stored.ws[None].to(device))
        (views,) = head.views(stored.cameras)
        return cls(stored.prompt, stored.seed, head, views, claim)

    def sheet(self, depth: bool = False) -> Image.Image:
        return _sheet([self], depth)

    def save_sheet(
        self, path: str | Path, depth: bool = False, overwrite: bool = False, *, provenance: bool = True
    ) -> None:
        """Save a picture of the prompt and its views in a row; `depth` adds a row of depth maps."""
        save_picture(self.sheet(depth), path, overwrite, claim=self.claim if provenance else None)

    def save_video(
        self,
        path: str | Path,  # .mp4, .webm or .gif
        motion: str | Path = "orbit",  # or "ellipse", or a file of camera keys: see geometry/paths.py
        seconds: float = 4.0,
        *,
        fps: int = 30,
        resolution: int | None = None,
        progress: bool | None = None,  # None: a bar on terminals only
        overwrite: bool = False,
        provenance: bool = True,
    ) -> Video:
        """Film the head while the camera moves."""
        cameras = along(motion, self.head.generator.config, max(1, round(seconds * fps)))
        claim = self.claim if provenance else None
        rest: dict[str, Any] = {"fps": fps, "resolution": resolution, "progress": progress, "overwrite": overwrite}
        return save_video(self.head, path, cameras=cameras, claim=claim, **rest)

    def save_page(
        self,
        path: str | Path,  # .html
        *,
        size: int | None = None,  # of a picture in the page, in pixels
        progress: bool | None = None,  # None: a bar on terminals only
        overwrite: bool = False,
        provenance: bool = True,
    ) -> "Page":
        """Save a page that turns the head in any browser, without a server or the network."""
        from dreamportrait.export.page import save_page

        claim = self.claim if provenance else None
        rest: dict[str, Any] = {"title": self.prompt, "size": size, "overwrite": overwrite}
        with progress_bar("page", progress) as report:
            return save_page(self.head, path, claim=claim, report=report, **rest)

    def mesh(self, resolution: int | None = None, texture: bool = True, *, progress: bool | None = None) -> "Mesh":
        """Return the surface of the head as triangles. See export/mesh.py."""
        from dreamportrait.export.mesh import extract  # scikit-image takes a while to load

        with progress_bar("mesh", progress) as report:
            return extract(self.head, resolution, texture=texture, report=report)

    def save_mesh(
        self,
        path: str | Path,  # .glb, .ply or .obj
        resolution: int | None = None,
        texture: bool = True,  # False: colours at vertices
        *,
        progress: bool | None = None,  # None: a bar on terminals only
        overwrite: bool = False,
        provenance: bool = True,
    ) -> "Mesh":
        """Save the surface of the head, and return it."""
        from dreamportrait.export.mesh_files import check_mesh_target

        path = check_mesh_target(path, overwrite)
        made = self.mesh(resolution, texture and path.suffix.lower() != ".ply", progress=progress)
        made.save(path, overwrite, self.claim.extras() if provenance else None)
        if provenance and path.suffix.lower() != ".glb":
            write_sidecar(path, self.claim)
        return made

    def splats(
        self,
        count: int = 65_536,
        background: bool = True,  # with the wall that the generator draws behind the head
        corrections: "SplatHead | bool" = True,  # a network for this model; see export/splats.py
        *,
        progress: bool | None = None,  # None: a bar on terminals only
    ) -> "Splats":
        """Return the head as Gaussian splats. See export/splats.py."""
        from dreamportrait.export.splats import make_splats

        with progress_bar("splats", progress) as report:
            return make_splats(self.head, count, background=background, corrections=corrections, report=report)

    def save_splats(
        self,
        path: str | Path,  # .ply or .spz
        count: int = 65_536,
        background: bool = True,
        corrections: "SplatHead | bool" = True,
        *,
        progress: bool | None = None,
        overwrite: bool = False,
        provenance: bool = True,
    ) -> "Splats":
        """Save the head as Gaussian splats, and return them."""
        from dreamportrait.export.splat_files import check_splats_target

        path = check_splats_target(path, overwrite)
        made = self.splats(count, background, corrections, progress=progress)
        made.save(path, overwrite)
        if provenance:
            write_sidecar(path, self.claim)
        return made

    def _repr_png_(self) -> bytes:  # notebooks show it
        return _png(self.sheet())

    def __repr__(self) -> str:
        return f"Portrait({self.prompt!r}, seed={self.seed}, {len(self.views.cameras)} views)"


class Portraits(Sequence[Portrait]):
    """The portraits of one call, in the order of the prompts."""

    def __init__(self, portraits: Iterable[Portrait]) -> None:
        self._portraits = tuple(portraits)

    def __len__(self) -> int:
        return len(self._portraits)

    def __iter__(self) -> Iterator[Portrait]:
        return iter(self._portraits)

    @overload
    def __getitem__(self, index: int) -> Portrait: ...

    @overload
    def __getitem__(self, index: slice) -> "Portraits": ...

    def __getitem__(self, index: int | slice) -> "Portrait | Portraits":
        return Portraits(self._portraits[index]) if isinstance(index, slice) else self._portraits[index]

    @property
    def images(self) -> Array:  # [N, V, R, R, 3] uint8
        return np.stack([portrait.images for portrait in self])

    @property
    def colors(self) -> Tensor:  # [N, V, 3, R, R] in -1 .. 1
        return torch.stack([portrait.colors for portrait in self])

    @property
    def depth(self) -> Tensor:  # [N, V, 1, r, r]
        return torch.stack([portrait.depth for portrait in self])

    def sheet(self, depth: bool = False) -> Image.Image:
        return _sheet(self._portraits, depth)

    def save_sheet(
        self, path: str | Path, depth: bool = False, overwrite: bool = False, *, provenance: bool = True
    ) -> None:
        """Save a picture with a row for each prompt; `depth` adds a row of depth maps below each."""
        claim = self._portraits[0].claim if provenance and self._portraits else None
        save_picture(self.sheet(depth), path, overwrite, claim=claim)

    def _repr_png_(self) -> bytes:  # notebooks show it
        return _png(self.sheet())

    def __repr__(self) -> str:
        return f"Portraits({list(self)})"


def _sheet(portraits: Sequence[Portrait], depth: bool) -> Image.Image:
    near, far = (float(edge) for edge in torch.stack([portrait.depth for portrait in portraits]).aminmax())
    rows = []
    for portrait in portraits:
        rows.append(Row(portrait.prompt, portrait.colors))
        if depth:
            rows.append(Row("", depth_to_images(portrait.depth, near, max(far, near + 1e-6))))
    return draw_sheet(rows)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
