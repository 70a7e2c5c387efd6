"""Tests of the change from the browser's camera to camera labels, in directions that are known."""

import math

import pytest
import torch

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.geometry.cameras import check_camera
from dreamportrait.geometry.rays import project
from dreamportrait.viewer.camera import Pose, front, label_of, pose_of, window_fov, within

CONFIG = GeneratorConfig(camera_radius=2.7, camera_pivot=(0.0, 0.1, 0.2))
PIVOT = CONFIG.camera_pivot


def seen_from(x: float, y: float, z: float) -> Pose:
    """Return the pose of a camera at this place relative to the pivot, which it looks at."""
    return pose_of((x + PIVOT[0], y + PIVOT[1], z + PIVOT[2]), PIVOT, CONFIG)


@pytest.mark.parametrize(
    ("place", "yaw", "pitch"),
    [
        ((0, 0, 2.7), 0, 0),
        ((2.7, 0, 0), 90, 0),
        ((-2.7, 0, 0), -90, 0),
        ((0, 2.7, 2.7), 0, 45),
        ((1, -1, 1), 45, -35.26),
    ],
)
def test_angles_of_known_places(place: tuple[float, float, float], yaw: float, pitch: float) -> None:
    pose = seen_from(*place)
    assert pose.yaw == pytest.approx(yaw, abs=1e-9) and pose.pitch == pytest.approx(pitch, abs=0.01)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (25.0, 10.0), (-40.0, -20.0)])
def test_training_cameras_keep_their_labels(yaw: float, pitch: float) -> None:
    training = CONFIG.around([yaw], pitch)
    label = check_camera(label_of(pose_of(tuple(training[0, [3, 7, 11]].tolist()), PIVOT, CONFIG), CONFIG))
    torch.testing.assert_close(label, training, atol=1e-5, rtol=0)  # float32, and angles there and back


def test_nearer_cameras_look_from_the_same_direction() -> None:
    label = label_of(seen_from(1.0, 0.5, 1.2), CONFIG)
    forward = torch.nn.functional.normalize(-torch.tensor([1.0, 0.5, 1.2]), dim=0)
    torch.testing.assert_close(label[0, [2, 6, 10]], forward, atol=1e-5, rtol=0)
    assert label[0, [3, 7, 11]].norm() == pytest.approx(2.7, abs=1e-5)  # around the origin, as in training
    pivot, _ = project(torch.tensor([[PIVOT]]), label)
    torch.testing.assert_close(pivot[0, 0], torch.tensor([0.5, 0.5]), atol=1e-5, rtol=0)


def test_right_and_up_in_the_world_are_right_and_up_in_the_picture() -> None:
    label = label_of(seen_from(0, 0, 2.7), CONFIG)
    x, y, z = PIVOT
    places, _ = project(torch.tensor([[[x + 0.1, y, z], [x, y + 0.1, z]]]), label)
    assert places[0, 0, 0] > 0.51 and places[0, 0, 1] == pytest.approx(0.5, abs=1e-4)
    assert places[0, 1, 1] < 0.49 and places[0, 1, 0] == pytest.approx(0.5, abs=1e-4)


def test_coming_closer_enlarges_from_the_distance_of_the_training() -> None:
    usual = math.sqrt(2.7**2 - 0.1**2) - 0.2  # from the pivot to the sphere, in front
    near, far = label_of(seen_from(0, 0, usual / 2), CONFIG), label_of(seen_from(0, 0, usual), CONFIG)
    assert torch.equal(near[:, :16], far[:, :16])
    torch.testing.assert_close(near[:, [16, 20]], 2 * CONFIG.around([0.0])[:, [16, 20]])
    assert seen_from(0, 0, 0.01).zoom == 4.0 and seen_from(0, 0, 1000).zoom == 0.5


def test_panning_moves_the_camera_with_its_target() -> None:
    pose = pose_of((PIVOT[0] + 0.1, PIVOT[1], PIVOT[2] + 2.7), (PIVOT[0] + 0.1, PIVOT[1], PIVOT[2]), CONFIG)
    assert pose.yaw == 0 and pose.offset == pytest.approx((0.1, 0, 0))
    moved = label_of(pose, CONFIG) - label_of(seen_from(0, 0, 2.7), CONFIG)
    assert moved[0, 3] == pytest.approx(0.1, abs=1e-6) and moved[0, [7, 11]].abs().max() < 1e-6
    assert pose_of((50.0, 0.0, 2.7), (50.0, 0.0, 0.0), CONFIG).offset[0] == 0.5  # half the box of width 1


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_wrong_cameras_are_at_the_front(wrong: float) -> None:
    assert pose_of((wrong, 0.0, 0.0), (0.0, 0.0, 0.0), CONFIG) == Pose()
    assert pose_of((0.0, 0.0, 0.0), (0.0, wrong, 0.0), CONFIG) == Pose()
    assert pose_of((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), CONFIG) == Pose()


def test_cameras_over_the_head_have_a_label() -> None:
    check_camera(label_of(seen_from(0, 2.7, 0), CONFIG))


def test_angles_can_be_limited() -> None:
    assert within(Pose(50, -20, 2.0), 30, 10) == Pose(30, -10, 2.0)
    assert within(Pose(-5, 3), 30, 10) == Pose(-5, 3)


def test_the_camera_before_the_face() -> None:
    assert front(CONFIG) == pytest.approx((0, 0.1, math.sqrt(2.7**2 - 0.1**2)), abs=1e-6)
    assert pose_of(front(CONFIG), PIVOT, CONFIG).zoom == pytest.approx(1.0, abs=1e-6)


def test_a_square_window_shows_what_training_pictures_show() -> None:
    tangent = 0.5 / float(CONFIG.around([0.0])[0, 20])
    assert math.tan(window_fov(1.0) / 2) == pytest.approx(tangent)
    assert window_fov(2.0) == window_fov(1.0)  # wide windows have bars at the sides
    assert math.tan(window_fov(0.5) / 2) * 0.5 == pytest.approx(tangent)  # narrow ones above and below
