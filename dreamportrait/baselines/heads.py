"""Heads that a method has made, as they are seen from fixed views, in files: one for each prompt and seed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamportrait.core.files import honour_umask, replacing
from dreamportrait.geometry.images import from_bytes, to_bytes
from dreamportrait.geometry.views import Heads

VIEWS = (-15.0, 0.0, 15.0)  # degrees to the right of the front
FRONT = VIEWS.index(0.0)


class Cost(NamedTuple):
    """What it took to come from a prompt to a head."""

    seconds: float  # by the clock
    busy: float  # CPU seconds of all threads. On a GPU: by the clock
    peak_mb: float  # memory beyond that of the loaded models


@dataclass(frozen=True)
class Seen:
    """One head."""

    images: Tensor  # [V, 3, R, R] in -1 .. 1, of 8 bits
    depth: Tensor  # [V, 1, r, r]
    cost: Cost


@torch.no_grad()
def look(head: Heads, cameras: Tensor, cost: Cost) -> Seen:  # [V, 25]
    views = [head.view(camera[None]) for camera in cameras]
    images = torch.cat([view.image.float() for view in views])
    return Seen(from_bytes(_bytes(images)), torch.cat([view.depth.float() for view in views]).cpu(), cost)


def save(seen: Seen, path: Path) -> None:
    tensors = {"images": _bytes(seen.images), "depth": seen.depth.contiguous()}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, {"cost": json.dumps(seen.cost._asdict())})
        honour_umask(unfinished)


def load(path: Path) -> Seen:
    with safe_open(path, "pt") as file:
        cost = Cost(**json.loads(file.metadata()["cost"]))
        return Seen(from_bytes(file.get_tensor("images")), file.get_tensor("depth"), cost)


def _bytes(images: Tensor) -> Tensor:  # [V, 3, R, R] in -1 .. 1 -> uint8
    return torch.from_numpy(to_bytes(images)).permute(0, 3, 1, 2).contiguous()


class View(NamedTuple):
    """A stored view, as metrics read it."""

    image: Tensor  # [N, 3, R, R]
    image_raw: Tensor
    depth: Tensor  # [N, 1, r, r]
    weights: Tensor


def stacked(heads: Sequence[Seen]) -> list[View]:
    """Return the views of N heads, one for each angle."""
    found = []
    for v in range(len(VIEWS)):
        images, depth = (torch.stack([getattr(head, name)[v] for head in heads]) for name in ("images", "depth"))
        found.append(View(images, images, depth, torch.ones_like(depth)))
    return found
