"""Measure the canonical head from a photograph and write head.json.

python -m dreamportrait.data.preparation.canonical [PHOTO ...]

The landmark network guesses the depth of its 468 points. Each face is moved onto the five points of EG3D's mean face,
averaged with the others and made symmetric. The shipped head comes from one photograph in the public domain: NASA's
portrait of Eileen Collins, which scikit-image ships. It is only where estimation starts: `refine.py` fits the head to
the data set.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numpy import ndarray as Array
from PIL import Image
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from dreamportrait.core.files import write_text
from dreamportrait.data.preparation.detector import FaceFinder
from dreamportrait.data.preparation.head import ANCHOR_WEIGHTS, WORLD_ANCHORS, mesh_anchors, similarity


def main() -> None:
    finder = FaceFinder()
    if sys.argv[1:]:
        photos = [Image.open(path).convert("RGB") for path in sys.argv[1:]]
    else:
        from skimage import data

        photos = [Image.fromarray(data.astronaut())]
    meshes = [in_world(mesh) for photo in photos for mesh in finder.meshes(photo)]
    head = symmetric(np.mean(meshes, 0))
    path = Path(__file__).with_name("head.json")
    rows = ",\n".join(json.dumps(point) for point in head.round(5).tolist())
    about = "The 468 points of MediaPipe's face mesh in EG3D's world, measured by canonical.py"
    write_text(path, f'{{"about": "{about}", "points": [\n{rows}\n]}}\n')
    off = np.linalg.norm(mesh_anchors(head) - WORLD_ANCHORS, axis=1)
    print(f"wrote {path}: {len(meshes)} faces; distance of the five points to those of the mean face: {off.round(3)}")


def in_world(mesh: Array) -> Array:  # [468, 3]
    """Move a mesh in pixels (y down, larger depth = farther) into the world of the labels."""
    mesh = mesh * [1, -1, -1]
    scale, rotation, offset = similarity(mesh_anchors(mesh), WORLD_ANCHORS, ANCHOR_WEIGHTS)
    return scale * mesh @ rotation.T + offset


def symmetric(mesh: Array) -> Array:  # [468, 3]
    """Average each point with its mirrored partner, found by assignment."""
    flipped = mesh * [-1, 1, 1]
    distances = np.linalg.norm(mesh[:, None] - flipped[None], axis=-1)
    partner = linear_sum_assignment(distances)[1]
    pairs = np.where(partner[partner] == np.arange(len(mesh)), partner, distances.argmin(1))
    return (mesh + flipped[pairs]) / 2


if __name__ == "__main__":
    main()
