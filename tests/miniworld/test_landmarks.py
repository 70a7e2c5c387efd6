"""Tests of landmarks: where the renderer draws them, hidden where something stands before them."""

import numpy as np
import pytest

from dreamportrait.geometry.cameras import orbit
from dreamportrait.miniworld.attributes import TRAITS, make_attributes, read_code, sample_codes
from dreamportrait.miniworld.faces import SCALE, render
from dreamportrait.miniworld.landmarks import NAMES, landmarks
from dreamportrait.miniworld.styles import Look, style
from dreamportrait.miniworld.world import RADIUS

STILL = np.zeros(len(TRAITS))
SIZE = 256


def camera(yaw: float, pitch: float = 0.0) -> np.ndarray:
    return orbit([yaw], pitch, RADIUS, (0, 0, 0)).numpy()[0]


def test_from_the_front():
    """Eyes of a mean face lie 0.084 aside of the middle and 0.215 before it; the focal length is 4.2647 pictures."""
    found = landmarks(make_attributes(hair_style="short"), STILL, camera(0))
    x = dict(zip(NAMES, found.places[:, 0], strict=True))
    assert x["right eye"] == pytest.approx(0.5 + 4.2647 * 0.084 / (2.7 / SCALE - 0.215), abs=1e-4)
    assert x["left eye"] == pytest.approx(1 - x["right eye"]) and x["nose"] == pytest.approx(0.5)
    assert found.seen.all()


def test_sides_and_back():
    face = make_attributes(hair_style="short")
    seen = {yaw: dict(zip(NAMES, landmarks(face, STILL, camera(yaw)).seen, strict=True)) for yaw in (90, -90, 180)}
    assert seen[90]["right eye"] and not seen[90]["left eye"] and seen[90]["right ear"] and not seen[90]["left ear"]
    assert seen[-90]["left eye"] and not seen[-90]["right eye"]
    assert not any(seen[180][name] for name in NAMES[:5])
    assert seen[180]["left ear"] and seen[180]["right shoulder"]


def test_hair_and_wigs_hide_ears_and_beards_the_neck():
    def seen(look: Look, **chosen: str) -> dict[str, bool]:
        return dict(zip(NAMES, landmarks(make_attributes(**chosen), STILL, camera(0), look).seen, strict=True))

    plain = Look(None)
    assert seen(plain, hair_style="short")["left ear"] and not seen(plain, hair_style="long")["left ear"]
    assert not seen(Look(style("clown")), hair_style="short")["left ear"]
    assert seen(plain, gender="man")["neck"] and not seen(plain, facial_hair="beard")["neck"]


@pytest.mark.parametrize("yaw", [0.0, 30.0, -75.0, 140.0])
def test_the_depth_of_the_picture_agrees(yaw: float):
    checked = 0
    for z in sample_codes(8, seed=9):
        face, traits = read_code(z)
        face = face | {"eyewear": "none"}  # lenses are painted, and hide no landmark
        label = camera(yaw, 5.0)
        found, depth = landmarks(face, traits, label), render(face, traits, label, SIZE).depth
        inside = ((found.places > 0) & (found.places < 1)).all(1)
        column, row = (found.places[inside] * SIZE).astype(int).T
        drawn, distance = depth[row, column], found.distances[inside]
        # What hides a landmark is at least 0.06 units before it. A pixel averages four rays, so that its depth may lie
        # between those of two surfaces at a silhouette: 0.05 more.
        near = (drawn > 0) & (drawn < distance - 0.06 * SCALE + 0.05)
        far = (drawn == 0) | (drawn > distance - 0.06 * SCALE - 0.05)
        assert near[~found.seen[inside]].all() and far[found.seen[inside]].all() and not found.seen[~inside].any()
        checked += inside.sum()
    assert checked >= 60
