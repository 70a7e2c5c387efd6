"""Scores of styled heads and of edited pictures, by judges that trained nothing.

    reader     reads style, attributes and yaw of a picture: the style oracle of the miniature world
    scorer     compares pictures with texts: a CLIP

`measure` takes all scores of some styled heads. In the paper, thirty people judged instead: text against picture is now
`style` and `clip`, consistency is `between_views`, quality is `distance`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes
from dreamportrait.geometry.images import as_saved
from dreamportrait.geometry.views import View
from dreamportrait.metrics.consistency import reprojection_error
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.metrics.scores import BACKGROUND, TOLERANCE
from dreamportrait.miniworld.attributes import Attributes, is_visible
from dreamportrait.miniworld.styles import Style

VIEWS = (0.0, -25.0, 25.0)  # degrees; the front is compared with the others
Seen = tuple[View, Tensor]  # a view of N heads, and their cameras [N, 25]
SOLID = 0.5  # opacity from which a pixel is inside the head


class Reading(Protocol):
    """What a reader sees in N pictures."""

    @property
    def styles(self) -> Sequence[str]: ...  # names of styles

    @property
    def faces(self) -> Sequence[Attributes]: ...

    @property
    def yaw(self) -> Tensor: ...  # [N] degrees


class Reader(Protocol):
    def read(self, images: Tensor) -> Reading: ...  # [N, 3, R, R] in -1 .. 1


class Scorer(Protocol):
    def image_features(self, images: Tensor) -> Tensor: ...  # [N, 3, R, R] -> unit vectors [N, C]

    def text_features(self, prompts: list[str]) -> Tensor: ...


@dataclass(frozen=True)
class Scores:
    """Scores of styled heads. None = a judge for it was not given."""

    between_views: float  # mean difference of colours, -1 .. 1, where the front and a side show the same point
    roughness: float  # mean absolute Laplacian of depth inside the head
    clip: float | None = None  # mean cosine of pictures and the style's words
    style: float | None = None  # share of the pictures that are read as the style
    kept: float | None = None  # share of the attributes that the style keeps and that are read as before

    def as_dict(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@torch.no_grad()
def measure(
    heads: Planes,
    fronts: Tensor,  # [N, 3, R, R] before the style
    words: str,  # of the style
    style: Style | None,  # of the miniature world. None = a style that no reader knows
    reader: Reader | None,
    scorer: Scorer | None,
) -> Scores:
    """Measure N styled heads from all VIEWS."""
    seen = [heads.view(camera.expand(len(heads), -1)) for camera in cameras_of(heads.generator.config)]
    images = as_saved(torch.cat([view.image for view in seen]))  # [V * N, 3, R, R]
    front, known = images[: len(heads)], reader is not None and style is not None
    return Scores(
        between_views=between_views(heads, heads.generator.config),
        roughness=float(roughness(seen[0].depth, seen[0].weights).mean()),
        clip=None if scorer is None else float(clip_score(images, words, scorer)),
        style=style_accuracy(images, style, reader) if known and reader and style else None,
        kept=kept_attributes(front, fronts, style, reader) if known and reader and style else None,
    )


def cameras_of(config: GeneratorConfig) -> Tensor:  # [V, 25]
    return config.around(VIEWS)


# Text against picture.


def style_accuracy(images: Tensor, style: Style, reader: Reader) -> float:  # [N, 3, R, R]
    """Return the share of pictures that are read as the style."""
    found = reader.read(images).styles
    return sum(name == style.name for name in found) / len(found)


@torch.no_grad()
def clip_score(images: Tensor, words: str, scorer: Scorer) -> Tensor:  # []
    """Return the mean cosine of pictures and a text."""
    return (scorer.image_features(images) @ scorer.text_features([words]).T).mean()


def kept_attributes(images: Tensor, before: Tensor, style: Style, reader: Reader) -> float:  # [N, 3, R, R] x 2
    """Return the share of attributes with the same value before and after, of those that the style leaves readable."""
    pairs = zip(reader.read(before).faces, reader.read(images).faces, strict=True)
    same = [
        was[name] == now[name]
        for was, now in pairs
        for name in style.keeps
        if is_visible(was, name) and is_visible(now, name)
    ]
    return sum(same) / len(same) if same else float("nan")


def identity_rate(features: Tensor, candidates: Tensor) -> float:  # [N, C], [N, K, C], all unit vectors
    """Return the share of heads that are most similar to candidate 0, the exact styled face of the same person."""
    similar = torch.einsum("nc,nkc->nk", features, candidates)
    return float((similar.argmax(1) == 0).float().mean())


def distance(features: Tensor, exact: Tensor) -> float:  # [N, C], [M, C]
    """Return the Frechet distance of pictures to exact renders of styled faces."""
    return frechet_distance(Moments.of(features), Moments.of(exact))


# Views of one head.


@torch.no_grad()
def between_views(heads: Planes, config: GeneratorConfig) -> float:
    """Return the mean difference of colours between the front of heads and their sides."""
    n = len(heads)
    first, *others = [(heads.view(camera.expand(n, -1)), camera.expand(n, -1)) for camera in cameras_of(config)]
    return float(torch.stack([_difference(first, other, config) for other in others]).mean())


def _difference(first: Seen, second: Seen, config: GeneratorConfig) -> Tensor:  # []
    parts = [(view.image.clamp(-1, 1), view.depth, camera.to(view.depth)) for view, camera in (first, second)]
    return reprojection_error(parts[0], parts[1], *limits(config)).color.mean()


def between_edits(
    images: Tensor,  # [V, 3, R, R] edited views of one head
    depth: Tensor,  # [V, 1, r, r] of the head before the edit
    cameras: Tensor,  # [V, 25]
    config: GeneratorConfig,
) -> float:
    """Return the mean difference of colours between the first edited view and the others, on the unedited surface."""
    first = images[:1], depth[:1], cameras[:1]
    errors = [
        reprojection_error(first, (images[i, None], depth[i, None], cameras[i, None]), *limits(config)).color
        for i in range(1, len(images))
    ]
    return float(torch.cat(errors).mean())


def limits(config: GeneratorConfig) -> tuple[float, float]:
    """Return the depth beyond which is background, and the tolerance of hidden points, as for all other systems."""
    return config.camera_radius + BACKGROUND, TOLERANCE * config.box_warp


def roughness(depth: Tensor, opacity: Tensor) -> Tensor:  # [N, 1, r, r] x 2 -> [N]
    """Return the mean absolute Laplacian of depth over the pixels whose four neighbours are inside the head, too."""
    kernel = depth.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    cross = (kernel != 0).to(depth)
    inside = F.conv2d((opacity > SOLID).to(depth), cross) == cross.sum()
    bent = F.conv2d(depth, kernel).abs() * inside
    return bent.sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)


# Mixing.


def largest_step(images: Tensor) -> float:  # [S, 3, R, R] on the way from one style to another
    """Return the largest change between neighbours, divided by the mean change. 1 = an even way."""
    changes = images.diff(dim=0).abs().mean((1, 2, 3))
    return float(changes.max() / changes.mean().clamp(min=1e-12))
