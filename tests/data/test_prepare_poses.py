"""Tests of crops, poses and imported cameras against references, known cameras and other programs' conventions."""

import json

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from stand_ins import SIDE, SIZE, camera_at, stand_in

from dreamportrait.core.errors import DataError
from dreamportrait.data.preparation.cameras import checked, problem_of, read_cameras
from dreamportrait.data.preparation.crop import FOCAL, Square, cut, face_square
from dreamportrait.data.preparation.head import MEAN_FACE, WORLD_ANCHORS, canonical_head, mesh_points, similarity
from dreamportrait.data.preparation.landmarks import ANCHORS
from dreamportrait.data.preparation.plan import mirrored
from dreamportrait.data.preparation.pose import (
    OUTLIER,
    PIVOT,
    RADIUS,
    angles,
    project,
    rotation_error,
    solve_poses,
    to_labels,
)
from dreamportrait.data.preparation.refine import AT_LEAST, fits, refined_head, solve_in_chunks
from dreamportrait.geometry.cameras import check_camera, orbit
from dreamportrait.geometry.rays import rays_from_label

VIEWS = [(0, 0), (25, 10), (-40, 15), (60, -20), (-5, -25)]
SCHEMES = ("mesh468", "points68", "points5")


def cameras(count: int, seed: int = 0, spread: float = 20) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([camera_at(*rng.normal(0, spread, 2).clip(-60, 60)) for _ in range(count)])


# The head.


def test_the_canonical_head_is_symmetric_and_lies_on_the_mean_face():
    mesh = mesh_points()
    head = canonical_head("mesh468")
    assert mesh.shape == (468, 3)
    assert np.array_equal(head.mirrored[head.mirrored], np.arange(len(head.points)))
    assert np.allclose(head.points[head.mirrored], head.points * [-1, 1, 1], atol=1e-5)
    for group, anchor in zip(ANCHORS["mesh468"][:3], WORLD_ANCHORS, strict=False):  # eyes and nose; mouths differ
        assert np.linalg.norm(mesh[list(group)].mean(0) - anchor) < 0.01


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_know_where_their_points_are(scheme):
    head = canonical_head(scheme)
    assert len(head.numbers) == len(head.points)
    eyes = head.points[:, 2] > 0.1
    assert eyes.sum() >= 5 and np.abs(head.points).max() < 0.5


def test_similarity_finds_the_motion_it_was_made_with():
    rng = np.random.default_rng(0)
    points, turn = rng.normal(size=(9, 3)), Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix()
    scale, rotation, offset = similarity(points, 1.7 * points @ turn.T + [1, 2, 3], rng.uniform(0.1, 1, 9))
    assert scale == pytest.approx(1.7) and np.allclose(rotation, turn) and np.allclose(offset, [1, 2, 3])


# Poses.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_exact_landmarks_give_exact_cameras(scheme):
    known = np.stack([camera_at(*view) for view in VIEWS])
    head = canonical_head(scheme)
    poses = solve_poses(project(known, head.points), head.points)
    labels = to_labels(poses)
    assert np.abs(labels - known).max() < 1e-6
    assert poses.errors.max() < 1e-6
    assert np.allclose(np.linalg.norm(labels[:, [3, 7, 11]] - PIVOT, axis=1), RADIUS)
    check_camera(torch.from_numpy(labels))


def test_poses_are_those_of_a_general_solver():
    head, rng = canonical_head("points68").points, np.random.default_rng(1)
    known = camera_at(20, 8)
    points = project(known[None], head)[0] + rng.normal(0, 0.006, (len(head), 2))
    points[2] += 0.1  # far off

    def residual(x: np.ndarray) -> np.ndarray:
        placed = head @ Rotation.from_rotvec(x[:3]).as_matrix().T + x[3:]
        distances = np.linalg.norm(placed[:, :2] / placed[:, 2:] * FOCAL + 0.5 - points, axis=1)
        return OUTLIER * np.sqrt(np.log1p((distances / OUTLIER) ** 2))

    start = solve_poses(points[None], head)
    x = np.concatenate([Rotation.from_matrix(start.rotations[0]).as_rotvec(), start.offsets[0]])
    best = least_squares(residual, x + 0.02, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    assert np.abs(best.x - x).max() < 1e-3
    assert (residual(x) ** 2).sum() == pytest.approx((best.fun**2).sum(), rel=1e-6)


def test_a_few_wrong_landmarks_do_not_matter():
    head, rng = canonical_head("mesh468").points, np.random.default_rng(2)
    known = cameras(20)
    points = project(known, head) + rng.normal(0, 1 / 512, (20, len(head), 2))
    points[:, ::12] += 0.08
    assert rotation_error(to_labels(solve_poses(points, head)), known).max() < 0.5


@pytest.mark.parametrize("view", VIEWS)
def test_angles_are_those_of_orbit(view):
    label = orbit([view[0]], view[1], RADIUS, (0.0, 0.0, 0.0)).double().numpy()
    assert angles(label)[0] == pytest.approx([*view, 0], abs=1e-3)


def test_roll_is_clockwise_in_the_picture():
    camera = camera_at(10, 5)
    turn = Rotation.from_euler("z", -20, degrees=True).as_matrix()
    camera[:16].reshape(4, 4)[:3, :3] = camera[:16].reshape(4, 4)[:3, :3] @ turn
    top, chin = project(camera[None], np.array([[0, 0.25, 0.1], [0, -0.2, 0.1]]))[0]
    assert angles(camera[None])[0, 2] == pytest.approx(20, abs=1e-3)
    assert top[0] > chin[0]


def test_projection_agrees_with_the_renderer_s_rays():
    camera = camera_at(30, -10)
    origins, directions = rays_from_label(torch.from_numpy(camera).float()[None], 8)  # [1, 64, 3]
    points = (origins + 2.5 * directions)[0].double().numpy()
    grid = (np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(-1, 2) + 0.5) / 8
    assert np.abs(project(camera[None], points)[0] - grid).max() < 1e-5


def test_mirrored_cameras_see_the_mirrored_world():
    camera, points = camera_at(25, 10), np.random.default_rng(0).normal(0, 0.1, (20, 3))
    camera[18] = 0.45
    plain, turned = project(camera[None], points)[0], project(mirrored(camera)[None], points * [-1, 1, 1])[0]
    assert np.allclose(turned, plain * [-1, 1] + [1, 0])
    check_camera(torch.from_numpy(mirrored(camera)[None]))
    assert np.allclose(mirrored(mirrored(camera)), camera)


# Refinement.


def other_head(amount: float) -> np.ndarray:
    """Return a head with a longer nose and a flatter face, in the place of the canonical one."""
    head = canonical_head("mesh468").points
    changed = head.copy()
    changed[:, 2] += amount * ((head[:, 2] - 0.2) * 2 + 3 * head[:, 0] ** 2)
    scale, rotation, offset = similarity(changed, head, np.ones(len(head)))
    return scale * changed @ rotation.T + offset


def test_the_head_of_a_data_set_is_found():
    head, truth = canonical_head("mesh468"), other_head(0.25)
    points = project(cameras(60), truth) + np.random.default_rng(3).normal(0, 1 / 512, (60, len(truth), 2))
    refined = refined_head(head, points).points
    before, after = (np.sqrt(((points - truth) ** 2).sum(1).mean()) for points in (head.points, refined))
    assert after < before / 2
    known = cameras(60)
    errors = [np.median(rotation_error(to_labels(solve_in_chunks(points, h)), known)) for h in (head.points, refined)]
    assert errors[1] < errors[0] / 2
    assert np.allclose(refined[head.mirrored], refined * [-1, 1, 1], atol=1e-9)


def test_few_pictures_keep_the_canonical_head():
    head = canonical_head("mesh468")
    points = project(cameras(AT_LEAST - 1), other_head(0.2))
    assert refined_head(head, points) is head


def test_pictures_that_do_not_fit_are_found():
    errors = np.concatenate([np.random.default_rng(0).uniform(0.01, 0.014, 50), [0.1, np.nan]])
    assert fits(np.nan_to_num(errors, nan=1.0)).tolist() == [True] * 50 + [False] * 2
    assert fits(np.array([0.001, 0.001, 0.001, 0.01])).all()  # small errors always fit


# Crops.


def test_a_frontal_mean_face_is_cropped_as_published():
    """700 / 300 units of the mean face around its origin: 0.63 of our world, seen from 2.7."""
    points = MEAN_FACE[:, :2] * [100, -100] + [500, 400]
    square = face_square(points)
    assert square.side == pytest.approx(100 * 700 / 300, rel=0.01)
    assert np.allclose(square.middle, [500, 400], atol=1)
    assert np.allclose(square.right, [1, 0], atol=0.005)


def test_crops_turn_and_scale_with_the_face():
    points = MEAN_FACE[:, :2] * [100, -100] + [500, 400]
    turn = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    plain, turned = face_square(points), face_square(3 * points @ turn.T + [7, 9])
    assert np.allclose(turned.to_crop(3 * points @ turn.T + [7, 9]), plain.to_crop(points), atol=1e-9)


def test_pixels_land_where_points_do():
    face = stand_in("a.png")
    square = Square(np.array([SIZE / 2 + 7.3, SIZE / 2 - 4.1]), SIDE * 0.9, np.array([np.cos(0.2), np.sin(0.2)]))
    picture = Image.new("RGB", (SIZE, SIZE), "black")
    dot = np.array([133.5, 101.5])  # the middle of a pixel
    picture.putpixel((133, 101), (255, 255, 255))
    for resolution in (100, 400):
        bright = np.asarray(cut(picture, square, resolution), float)[..., 0]
        y, x = np.mgrid[:resolution, :resolution] + 0.5
        seen = np.array([(bright * x).sum(), (bright * y).sum()]) / bright.sum() / resolution
        assert np.allclose(seen, square.to_crop(dot), atol=0.003)
    assert face.picture.size == (SIZE, SIZE)


def test_small_crops_are_averaged_not_sampled():
    noise = np.random.default_rng(0).integers(0, 2, (512, 512, 1), np.uint8).repeat(3, 2) * 255
    square = Square(np.array([256.0, 256.0]), 400, np.array([1.0, 0.0]))
    small = np.asarray(cut(Image.fromarray(noise), square, 40), float)
    assert abs(small.mean() - 127.5) < 6 and small.std() < 30  # 10 x 10 random pixels have a deviation of 13


def test_what_lies_outside_is_filled_without_an_edge():
    picture = Image.fromarray(np.full((200, 200, 3), 180, np.uint8))
    square = Square(np.array([100.0, 20.0]), 150, np.array([1.0, 0.0]))
    assert square.outside(200, 200) == pytest.approx(55 / 150, abs=0.02)
    assert np.abs(np.asarray(cut(picture, square, 128), int) - 180).max() <= 1


# Cameras from other programs.


def test_labels_are_checked_one_by_one():
    good = camera_at(10, 5)

    def changed(index: int, value: float) -> list[float]:
        return [*good.tolist()[:index], value, *good.tolist()[index + 1 :]]

    cases = {
        "its label has 24 numbers": good[:24].tolist(),
        "its label has no numbers": None,
        "its label holds NaN": changed(3, float("nan")),
        "its label holds something": changed(3, "x"),
        "the pose of its label is no rotation": changed(0, 0.1),
        "the last row": changed(15, 2.0),
        "its intrinsics are not divided": changed(18, 256.0),
        "its intrinsics are no camera matrix": changed(24, 0.5),
    }
    found = checked(dict(cases))
    for name, message in found.items():
        assert isinstance(message, str) and message.startswith(name)
    assert problem_of(good) == "" and isinstance(checked({"a": good.tolist()})["a"], np.ndarray)


def test_deep3d_poses_are_converted_as_in_eg3d(tmp_path):
    """Known values: a frontal face is seen from straight ahead, 2.7 away; angles turn the head, not the camera."""
    scipy.io.savemat(tmp_path / "a.mat", {"angle": np.zeros((1, 3)), "trans": np.zeros((1, 3))})
    scipy.io.savemat(tmp_path / "b.mat", {"angle": np.array([[0, 0.3, 0]]), "trans": np.zeros((1, 3))})
    found = read_cameras(tmp_path, ["x/a.png", "b.png", "c.png"])
    # The camera's axes point right, down and at the face. EG3D shifts its place, then moves it to the distance 2.7.
    assert np.allclose(found["x/a.png"][:16].reshape(4, 4)[:3, :3], np.diag([1, -1, -1]))
    assert np.linalg.norm(found["x/a.png"][[3, 7, 11]] - PIVOT) == pytest.approx(RADIUS)
    assert found["b.png"][:16].reshape(4, 4)[:3, :3] == pytest.approx(
        Rotation.from_euler("y", -0.3).as_matrix() @ np.diag([1, -1, -1])
    )
    assert angles(found["b.png"][None])[0] == pytest.approx([-np.degrees(0.3), 0, 0], abs=1e-6)
    assert found["c.png"] == "has no pose"


def test_flame_rotations_turn_the_head(tmp_path):
    np.savez(tmp_path / "a.npz", pose=np.array([[0, 0.3, 0, 0.1, 0, 0]]))
    np.savez(tmp_path / "b.npz", global_orient=np.array([0.2, 0, 0]))
    found = read_cameras(tmp_path, ["a.png", "b.png"])
    # A head that turns to its left (to the right in the picture) is seen from its right side.
    assert angles(found["a.png"][None])[0] == pytest.approx([-np.degrees(0.3), 0, 0], abs=1e-6)
    # A head that nods down is seen from above.
    assert angles(found["b.png"][None])[0] == pytest.approx([0, np.degrees(0.2), 0], abs=1e-6)
    for camera in found.values():
        assert project(camera[None], PIVOT[None])[0] == pytest.approx(np.full((1, 2), 0.5))


def test_pose_files_that_cannot_be_used_say_why(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"nonsense")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    np.savez(tmp_path / "c.npz", pose=np.array([np.nan, 0, 0]))
    np.savez(tmp_path / "d.npz", pose=np.array([object()], dtype=object))
    np.savez(tmp_path / "e.npz", pose=np.zeros(5))
    found = read_cameras(tmp_path, [f"{name}.png" for name in "abcde"])
    expected = ("its pose cannot be read", "has neither", "NaN", "its pose cannot be read", "three or six")
    for message, part in zip(found.values(), expected, strict=True):
        assert isinstance(message, str) and part in message


def test_cameras_in_dataset_json(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": [["a.png", camera_at(5, 5).tolist()], ["b.png", [1.0]]]}))
    found = read_cameras(path, ["a.png", "b.png"])
    assert np.allclose(found["a.png"], camera_at(5, 5)) and found["b.png"] == "its label has 1 numbers, not 25"
    for text in ("{}", "[", '{"labels": [["a"]]}'):
        path.write_text(text)
        with pytest.raises(DataError, match="dataset.json"):
            read_cameras(path, [])
    path.write_text(json.dumps({"labels": [["a.png", [1]], ["a.png", [1]]]}))
    with pytest.raises(DataError, match="two labels for 'a.png'"):
        read_cameras(path, [])
