"""Small data sets on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamportrait.data.writing import Sample, write_dataset
from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose

TEXTS = [
    "a woman",
    "a person with red hair",
    'portrait of a woman, \u2028 \u00e9 \U0001f600 "quoted"\n and a second line',
]


def sample(index: int, size: int = 8, **changes: object) -> Sample:
    rng = np.random.Generator(np.random.PCG64(index))
    values = {
        "image": rng.integers(0, 256, (3, size, size), np.uint8),
        "camera": camera_label(official_pose(1.2 + 0.01 * index), intrinsics_from_fov(18.837))[0].numpy(),
        "captions": [f"{text} {index}" for text in TEXTS[: 1 + index % 3]],
        "evaluation": f"the face {index}",
        "attributes": {"gender": "woman", "hat": "none"},
    }
    return Sample(**(values | changes))


def write(out: Path, count: int = 5, **options: object) -> Path:
    assert write_dataset(out, map(sample, range(count)), {"split": "train"}, **options) == count
    return out


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
