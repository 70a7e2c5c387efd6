"""Stand-ins for photographs: simple drawn faces with known cameras, and their landmarks in a hand-over file."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image, ImageDraw

from dreamportrait.data.preparation.crop import FOCAL
from dreamportrait.data.preparation.head import canonical_head
from dreamportrait.data.preparation.landmarks import Face, Found, write_landmarks
from dreamportrait.data.preparation.pose import PIVOT, RADIUS, project
from dreamportrait.geometry.cameras import look_at

SIZE = 240  # pixels of a photograph
SIDE = 160  # of the face's crop in it


class StandIn(NamedTuple):
    file: str
    picture: Image.Image
    face: Face
    camera: Array  # [25], of a crop of SIDE pixels in the middle


def camera_at(yaw: float, pitch: float) -> Array:  # [25]
    """Return a camera as prepared data sets have it, at angles in degrees."""
    y, p = np.radians([yaw, pitch])
    place = PIVOT + RADIUS * np.array([np.cos(p) * np.sin(y), np.sin(p), np.cos(p) * np.cos(y)])
    pose = look_at(torch.from_numpy(place)[None], torch.from_numpy(PIVOT))  # [1, 4, 4]
    return np.concatenate([pose.flatten().numpy(), [FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1]])


def stand_in(file: str, yaw: float = 0.0, pitch: float = 0.0, seed: int = 0, scheme: str = "mesh468") -> StandIn:
    """Draw a face on a background of its own, as the camera sees the canonical head."""
    camera, rng = camera_at(yaw, pitch), np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    points = all_points(camera, scheme)
    face = Face(scheme, points)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = face.box
    draw.ellipse([left - 5, top - 15, right + 5, bottom + 15], fill=(224, 172, 140))
    for x, y in face.anchors()[:2]:
        draw.ellipse([x - 5, y - 3, x + 5, y + 3], fill="black")
    mouth = face.anchors()[3:]
    draw.line([*mouth[0], *mouth[1]], fill="red", width=4)
    return StandIn(file, picture, face, camera)


def all_points(camera: Array, scheme: str) -> Array:  # [P, 2] pixels
    from dreamportrait.data.preparation.head import mesh_points

    if scheme == "mesh468":
        placed = mesh_points()
    elif scheme == "points5":
        placed = canonical_head(scheme).points
    else:
        head = canonical_head(scheme)
        placed = np.zeros((68, 3)) + [0, 0, 0.2]
        placed[list(head.numbers)] = head.points
        for group, anchor in (((36, 37, 38, 39, 40, 41), 0), ((42, 43, 44, 45, 46, 47), 1), ((48,), 3), ((54,), 4)):
            placed[[i for i in group if i not in head.numbers]] = canonical_head("points5").points[anchor]
    return project(camera[None], placed)[0] * SIDE + (SIZE - SIDE) / 2


def write_photos(folder: Path, count: int = 6, scheme: str = "mesh468") -> list[StandIn]:
    """Write photographs, a text file with two captions beside each, and landmarks.jsonl beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [stand_in(f"{i:03d}.jpg", 40 * i / max(count - 1, 1) - 20, 6 * (i % 3) - 6, i, scheme) for i in range(count)]
    for i, each in enumerate(made):
        each.picture.save(folder / each.file, quality=95)
        (folder / each.file).with_suffix(".txt").write_text(f"a face, number {i}\nanother caption of {i}\n")
    write_landmarks(landmarks_of(folder), [found(each) for each in made])
    return made


def landmarks_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-landmarks.jsonl")


def found(each: StandIn) -> Found:
    return Found(each.file, *each.picture.size, [each.face])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
