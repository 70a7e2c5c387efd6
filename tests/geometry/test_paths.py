"""Tests of camera paths: hand-computed angles, closed paths, interpolation of keys, and files of keys."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.geometry import paths
from dreamportrait.geometry.cameras import FOV, check_camera, intrinsics_from_fov
from dreamportrait.geometry.paths import Key, from_file, read_keys, through

CONFIG = GeneratorConfig(camera_pivot=(0.0, 0.0, 0.0))
# Angles in degrees go through float32 matrices: 2.7 +- 2e-7 in the position is less than 1e-4 degrees in the angle.
CLOSE = {"atol": 1e-3, "rtol": 0}


def angles(cameras: Tensor) -> Tensor:  # [T, 25] -> [T, 2]
    """Return yaw and pitch of cameras that look at the origin, from their positions."""
    x, y, z = check_camera(cameras)[:, [3, 7, 11]].double().unbind(1)
    return torch.stack([torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))], 1).rad2deg()


def expect(cameras: Tensor, *pairs: tuple[float, float]) -> None:
    torch.testing.assert_close(angles(cameras), torch.tensor(pairs, dtype=torch.float64), **CLOSE)


def test_an_orbit_swings_from_side_to_side() -> None:
    expect(paths.orbit(CONFIG, 4), (0, 0), (25, 0), (0, 0), (-25, 0))
    expect(paths.orbit(CONFIG, 4, (-10, 30), pitch=5), (10, 5), (30, 5), (10, 5), (-10, 5))


def test_an_ellipse() -> None:
    expect(paths.ellipse(CONFIG, 4), (0, 9), (20, 0), (0, -9), (-20, 0))
    corner = (50**0.5, 8**0.5)  # half axes 10 and 4, times the sine of 45 degrees
    expect(paths.ellipse(CONFIG, 8, yaw=10, pitch=4)[1:4:2], corner, (corner[0], -corner[1]))


@pytest.mark.parametrize("path", [paths.orbit, paths.ellipse])
def test_closed_paths_repeat_without_a_jump(path) -> None:
    found = angles(path(CONFIG, 30))
    steps = torch.cat([found, found[:1]]).diff(dim=0).norm(dim=1)
    assert steps[-1] <= steps.max() and steps.max() < 2 * 3.1416 / 30 * 25 + 1e-3  # sin and cos have slope 1 at most
    assert steps[-1] > 0  # the first frame is not shown twice


def test_one_frame() -> None:
    expect(paths.orbit(CONFIG, 1), (0, 0))
    expect(through(CONFIG, [Key(5, 1), Key(9, 2)], 1), (5, 1))


def test_keys_are_reached_and_curves_are_smooth() -> None:
    # Slopes are 10 and 0. So the slope at the first key is 10, at the others 0: between two equal keys nothing moves,
    # and in the middle of the first part, the Hermite curve is at (0 + 10) / 2 + (10 - 0) / 8.
    expect(through(CONFIG, [Key(0, 0), Key(10, 0), Key(10, 0)], 5), (0, 0), (6.25, 0), (10, 0), (10, 0), (10, 0))
    # Two keys give a straight line.
    expect(through(CONFIG, [Key(0, 0), Key(10, -8)], 3), (0, 0), (5, -4), (10, -8))
    # Slopes 10 and 30: the harmonic mean at the middle key is 15.
    middle = (0 + 10) / 2 + (10 - 15) / 8
    expect(through(CONFIG, [Key(0, 0), Key(10, 0), Key(40, 0)], 5)[:3], (0, 0), (middle, 0), (10, 0))


def test_one_key_stands_still() -> None:
    expect(through(CONFIG, [Key(7, 3)], 3), (7, 3), (7, 3), (7, 3))


def test_a_path_whose_last_key_repeats_the_first_is_closed() -> None:
    keys = [Key(0, 0), Key(10, 5), Key(0, 10), Key(-10, 5), Key(0, 0)]
    closed = through(CONFIG, keys, 8)
    expect(closed[::2], *((key.yaw, key.pitch) for key in keys[:-1]))
    # The curve is as smooth at the first key as at the others: by symmetry, the frames at its sides mirror each other.
    before, after = angles(closed)[[-1, 1]]
    torch.testing.assert_close(before, after * torch.tensor([-1.0, 1.0], dtype=torch.float64), **CLOSE)
    assert abs(float(after[0])) > 0.1


def test_fields_of_view() -> None:
    cameras = through(CONFIG, [Key(0, 0, 10), Key(0, 0), Key(0, 0, 30)], 3)
    for camera, fov in zip(cameras, (10, FOV, 30), strict=True):
        assert torch.equal(camera[16:], intrinsics_from_fov(fov).flatten())
    assert torch.equal(through(CONFIG, [Key(3, 0)], 1), CONFIG.around([3]))


@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-60, 60)), min_size=2, max_size=6), st.integers(1, 5))
def test_curves_stay_between_their_keys(pairs: list[tuple[float, float]], per_key: int) -> None:
    frames = (len(pairs) - 1) * per_key + 1
    values = torch.tensor(pairs, dtype=torch.float64)
    times = torch.arange(frames, dtype=torch.float64) / per_key
    found = paths._interpolated(values, times, closed=False)
    i = times.long().clamp(max=len(pairs) - 2)
    low, high = torch.minimum(values[i], values[i + 1]), torch.maximum(values[i], values[i + 1])
    assert bool((found >= low - 1e-9).all()) and bool((found <= high + 1e-9).all())  # rounding of float64
    torch.testing.assert_close(found[::per_key], values, atol=1e-9, rtol=0)


# Files.


def test_csv_and_json_give_the_same_path(tmp_path: Path) -> None:
    table, objects = tmp_path / "keys.csv", tmp_path / "keys.json"
    table.write_text("yaw, pitch, fov\n-20, 0, 18\n0, 15.5\n20, 0,\n", encoding="utf-8-sig")  # as spreadsheets save it
    objects.write_text('[{"yaw": -20, "pitch": 0, "fov": 18}, {"yaw": 0, "pitch": 15.5}, {"yaw": 20, "pitch": 0}]')
    assert read_keys(table) == read_keys(objects) == [Key(-20, 0, 18), Key(0, 15.5), Key(20, 0)]
    assert torch.equal(from_file(CONFIG, table, 5), from_file(CONFIG, str(objects), 5))
    expect(from_file(CONFIG, table, 5)[::2], (-20, 0), (0, 15.5), (20, 0))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("keys.txt", "yaw,pitch\n0,0\n", "must end in .csv or .json"),
        ("keys.csv", "yaw,pitch\n", "list of 1 to 10000 camera keys"),
        ("keys.csv", "", "list of 1 to 10000 camera keys"),
        ("keys.csv", "yaw,roll\n0,0\n", r"key 1: needs yaw and pitch, and may have fov.*got \"\['yaw', 'roll'\]\""),
        ("keys.csv", "yaw,pitch\n0,0,1\n", "key 1: needs yaw and pitch"),
        ("keys.csv", "yaw,pitch\n0,0\n0\n", "key 2: needs yaw and pitch"),
        ("keys.csv", "yaw,pitch\n0,left\n", "key 1: pitch must be a number, got \"'left'\""),
        ("keys.csv", "yaw,pitch\n0,nan\n", "key 1: pitch must be a finite number"),
        ("keys.csv", "yaw,pitch\n0,90\n", "pitch 90 between -90 and 90"),
        ("keys.csv", 'yaw,pitch\n"0,0\n', "cannot be read as CSV"),
        ("keys.csv", "yaw,pitch\n" + "0,0\n" * 10_001, "list of 1 to 10000 camera keys"),
        ("keys.csv", "yaw,pitch\n" + "0,0\n" * 400_000, "at most 1048576"),
        ("keys.json", "{}", "list of 1 to 10000 camera keys"),
        ("keys.json", "[", "cannot be read as JSON"),
        ("keys.json", "[" * 100_000, "cannot be read as JSON"),
        ("keys.json", "[5]", "key 1: needs yaw and pitch"),
        ("keys.json", '[{"yaw": true, "pitch": 0}]', "key 1: yaw must be a number, got 'True'"),
        ("keys.json", '[{"yaw": 1e999, "pitch": 0}]', "key 1: yaw must be a finite number"),
        ("keys.json", json.dumps([{"yaw": 10**400, "pitch": 0}]), "key 1: yaw must be a number"),
        ("keys.json", '[{"yaw": 0, "pitch": 0, "fov": 0}]', "fov 0 between 0 and 180"),
        ("keys.json", '[{"yaw": 400, "pitch": 0}]', "yaw 400 must be within -360 .. 360"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_keys(tmp_path / name)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "keys.csv").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match="cannot be read as CSV"):
        read_keys(tmp_path / "keys.csv")
    with pytest.raises(FileNotFoundError):
        read_keys(tmp_path / "none.csv")


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="frames"):
        paths.orbit(CONFIG, 0)
    with pytest.raises(ValueError, match="pitch=100"):
        paths.orbit(CONFIG, 3, pitch=100)
