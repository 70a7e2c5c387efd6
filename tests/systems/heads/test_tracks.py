"""Tests of reading tracks: Live Link Face, MediaPipe, FLAME's parameters, landmarks; and of tracks at other times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_heads import arm

from dreamportrait.core.errors import DataError
from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.arkit import NAMES
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.tracks import live_link, mediapipe, read_track

ANGLES = [f"{what}{turn}" for what in ("Head", "LeftEye", "RightEye") for turn in ("Yaw", "Pitch", "Roll")]
HEADER = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in NAMES), *ANGLES]


def csv(*rows: dict[str, object], header: list[str] = HEADER) -> str:
    """Return a file whose rows have the given values, and 0 elsewhere."""
    lines = [",".join(header)]
    for row in rows:
        lines.append(",".join(str(row.get(name, 61 if name == "BlendShapeCount" else 0)) for name in header))
    return "\n".join(lines)


def at(code: str, **values: object) -> dict[str, object]:
    return {"Timecode": code, **values}


@pytest.fixture(scope="module")
def model() -> HeadModel:
    head: HeadModel = from_pretrained("mini/head")
    return head


def test_live_link() -> None:
    track = live_link(
        csv(at("10:00:59:58.5", JawOpen=0.5, HeadYaw=0.3, HeadPitch=-0.1), at("10:01:00:15", EyeBlinkLeft=1)), fps=60
    )
    np.testing.assert_allclose(track.times, [0, 16.5 / 60], atol=1e-9)
    assert set(track.weights) == set(NAMES)
    assert track.weights["jawOpen"].tolist() == [0.5, 0]
    assert track.weights["eyeBlinkLeft"].tolist() == [0, 1]
    assert track.rotations["neck"].tolist() == [[-0.1, 0.3, 0], [0, 0, 0]]  # pitch, yaw, roll
    assert set(track.rotations) == {"neck"}  # eyes move by their expressions already


def test_live_link_past_midnight() -> None:
    track = live_link(csv(at("23:59:59:59"), at("00:00:00:01")))
    np.testing.assert_allclose(track.times, [0, 2 / 60], atol=1e-9)


def test_eyes_turn_where_no_expression_moves_them() -> None:
    header = [name for name in HEADER if not name.startswith("EyeLook")]
    track = live_link(csv(at("0:0:0:0", LeftEyeYaw=0.2), at("0:0:0:1"), header=header))
    assert track.rotations["leftEye"][0].tolist() == [0, 0.2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (csv(at("0:0:0:1"), at("0:0:0:1")), "row 2 at '0:0:0:1' is not after the row before"),
        (csv(at("0:0:0:1"), at("x")), "row 2 has time code 'x'"),
        (csv(at("0:0:0:1", JawOpen="nan")), "row 1 holds 'nan', not a number"),
        (csv(at("0:0:0:1", JawOpen="")), "row 1 holds '', not a number; --lenient"),
        (csv(at("0:0:0:1"), header=[*HEADER, "JawOpened"]), "unknown columns 'JawOpened'; near 'JawOpened': JawOpen"),
        (csv(at("0:0:0:1")) + ",1", "row 1 has 64 columns, the header has 63"),
        ("a,b\n1,2", "no Live Link Face CSV"),
        (csv(), "no Live Link Face CSV"),
        ("Timecode,HeadYaw\n0:0:0:0,1", "no column of ARKit's expressions"),
    ],
)
def test_wrong_live_link_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        live_link(text)


def test_lenient_leaves_out_what_nobody_knows() -> None:
    header = [*HEADER, "Extra"]
    empty: dict[str, object] = dict.fromkeys(HEADER[2:], "")
    track = live_link(csv(at("0:0:0:1"), at("0:0:0:2", **empty), at("0:0:0:3"), header=header), lenient=True)
    np.testing.assert_allclose(track.times, [0, 2 / 60], atol=1e-9)


SCORES = {"_neutral": 0.1, **dict.fromkeys(NAMES[:-1], 0.25)}  # MediaPipe has no tongueOut
LIST = [{"index": i, "categoryName": name, "score": score} for i, (name, score) in enumerate(SCORES.items())]
SNAKE = [{"category_name": name, "score": score} for name, score in SCORES.items()]


@pytest.mark.parametrize(
    "frame",
    [
        LIST,
        SNAKE,
        SCORES,
        {"categories": LIST, "headIndex": -1},
        {"faceBlendshapes": [{"categories": LIST}], "timestamp_ms": 0},
        {"face_blendshapes": [SNAKE]},
        {"blendshapes": SCORES},
        [LIST],
    ],
)
def test_mediapipe(frame: Any) -> None:
    for content in ([frame], {"frames": [frame]}):
        track = mediapipe(content, 25)
        assert set(track.weights) == set(NAMES) - {"tongueOut"}
        assert track.weights["jawOpen"].tolist() == [0.25]


def test_mediapipe_times() -> None:
    frames = [{"timestamp_ms": t, "categories": LIST} for t in (40, 80, 160)]
    np.testing.assert_allclose(mediapipe(frames, 1).times, [0, 0.04, 0.12], atol=1e-12)
    np.testing.assert_allclose(mediapipe([LIST] * 3, 10).times, [0, 0.1, 0.2], atol=1e-12)
    assert mediapipe([LIST, [], LIST], 10, lenient=True).times.tolist() == pytest.approx([0, 0.2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no frames"),
        ({}, "no frames"),
        ([LIST, []], "frame 1 has no face; --lenient"),
        ([[{"score": 1}]], "must have categoryName and score"),
        ([{"categories": [{"categoryName": "jawOpen", "score": "x"}]}], "frame 0 holds something else"),
        ([{"categories": [{"categoryName": "jawOpen", "score": float("nan")}]}], "frame 0 holds something else"),
        ([{"jawOpened": 1.0}], "unknown names 'jawOpened'"),
        ([LIST, {"jawOpen": 1.0}], "frame 1 lacks"),
        ([3], "frame 0 is a int"),
    ],
)
def test_wrong_mediapipe_files_are_refused(content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mediapipe(content, 30)


def test_parameters_of_flame(tmp_path: Path, model: HeadModel) -> None:
    jaw = np.array([[0.1, 0, 0], [0.2, 0, 0]])
    np.savez(tmp_path / "a.npz", expr=np.ones((2, 3)), jaw_pose=jaw, eyes_pose=np.ones((2, 6)))
    with pytest.raises(ValueError, match="unknown expression 'expression000'"):
        read_track(tmp_path / "a.npz", model)
    track = read_track(tmp_path / "a.npz", model, fps=10, lenient=True)
    assert track.times.tolist() == [0, 0.1]
    assert track.weights == {}
    assert set(track.rotations) == {"jaw", "leftEye", "rightEye"}
    np.testing.assert_array_equal(track.rotations["jaw"], jaw)
    flame = arm(expr_names=("expression000",), joint_names=("root", "jaw"))
    np.savez(tmp_path / "b.npz", expr=np.array([[1.0], [3]]), jaw_pose=jaw)
    assert read_track(tmp_path / "b.npz", flame).weights["expression000"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"expr": np.ones((2, 3)), "jaw_pose": np.ones((3, 3))}, "equally many frames are needed"),
        ({"other": np.ones(3)}, "found none of them"),
        ({"jaw_pose": np.ones((2, 4))}, "jaw_pose has 4 columns, must have 3"),
        ({"expr": np.array([{}], dtype=object)}, "no .npz file of plain arrays"),
        ({"jaw_pose": np.ones((2, 3)), "times": np.array([1.0, 1.0])}, "row 1 is at 1.0 after 1.0"),
        ({"landmarks": np.full((2, 68, 2), 300.0)}, "say with --size how large the square picture is"),
        ({"landmarks": np.ones((2, 5, 2))}, r"must be \[T, 68, 2 or 3\]"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, model: HeadModel, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_track(tmp_path / "a.npz", model, lenient=True)


def test_files_are_refused_by_name(tmp_path: Path, model: HeadModel) -> None:
    (tmp_path / "a.json").write_text("{")
    for name, message in (("a.bvh", "must end in one of"), ("b.csv", "is not there"), ("a.json", "a.json: Expecting")):
        with pytest.raises(DataError, match=message):
            read_track(tmp_path / name, model)
    (tmp_path / "c.json").write_text(json.dumps([LIST]))
    with pytest.raises(ValueError, match="fps=0"):
        read_track(tmp_path / "c.json", model, fps=0)
    assert read_track(tmp_path / "c.json", model).weights["jawOpen"].tolist() == [0.25]


def test_joints_may_be_spelt_otherwise() -> None:
    track = Track(np.array([0.0]), {}, {"E_lbow": np.zeros((1, 3))}).fitted(arm())
    assert set(track.rotations) == {"elbow"}
    with pytest.raises(ValueError, match="unknown joint 'knee'"):
        Track(np.array([0.0]), {}, {"knee": np.zeros((1, 3))}).fitted(arm())


def test_tracks_at_other_times() -> None:
    track = Track(np.array([1.0, 2.0]), {"grow": np.array([0.0, 1])}, {"elbow": np.array([[0, 0, 0], [0, 0, 1.0]])})
    found = track.frames(4)
    assert found.times.tolist() == [1, 1.25, 1.5, 1.75, 2]
    assert found.weights["grow"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.rotations["elbow"][2].tolist() == [0, 0, 0.5]
