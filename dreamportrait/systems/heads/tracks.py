"""Reads tracks from files: how a filmed face moved.

    .csv     Live Link Face: a row a frame, with ARKit's 52 weights and angles of head and eyes in radians
    .json    MediaPipe's blend shapes: a list of frames, each a list of names and scores
    .npz     parameters of FLAME: expr [T, E], jaw_pose, neck_pose [T, 3], eyes_pose [T, 6]; or landmarks
    .npy     landmarks [T, L, 2] in a square picture, or [T, L, 3] in space

Angles turn as joints do, right-handed: pitch around x (to the head's left), yaw around y (up), roll around z (to the
front). All problems of a file name their row.
"""

import csv
import io
import json
import math
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import DataError, listed, shown
from dreamportrait.core.files import MEBIBYTE, read_text
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.arkit import NAMES
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.readers.npz import read_npz
from dreamportrait.systems.heads.tracking import follow

SUFFIXES = (".csv", ".json", ".npz", ".npy")
FPS = 60.0  # of Live Link Face, unless the user changed it; others have no rate of their own
MOST_TEXT = 256 * MEBIBYTE
_TURNS = ("Pitch", "Yaw", "Roll")
_ANGLES = {"Head": "neck", "LeftEye": "leftEye", "RightEye": "rightEye"}  # columns, with a turn, and joints
_POSES = {"neck_pose": ("neck",), "jaw_pose": ("jaw",), "eyes_pose": ("leftEye", "rightEye"), "rotation": ("root",)}
_LAYERS = ("faceBlendshapes", "face_blendshapes", "blendshapes", "categories")  # around a frame's scores
_CLOCKS = {"timestamp_ms": 1e-3, "timestampMs": 1e-3, "timestamp": 1.0}  # and their units in seconds


def read_track(
    path: str | Path,
    model: HeadModel,
    *,
    fps: float | None = None,  # frames a second, where the file gives no times; of Live Link's time codes
    size: int | None = None,  # pixels along each side of the picture of landmarks; None: they are shares of it
    lenient: bool = False,  # leave out columns that nobody knows, and frames without a face
) -> Track:
    """Read a track and fit it to a model."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a track must end in one of {', '.join(SUFFIXES)}")
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise ValueError(f"fps={fps}: must be above 0 and at most 1000")
    if not path.is_file():
        raise DataError(f"{path} is not there")
    rate = fps or FPS
    try:
        if path.suffix.lower() == ".csv":
            track = live_link(read_text(path, MOST_TEXT), rate, lenient)
        elif path.suffix.lower() == ".json":
            track = mediapipe(json.loads(read_text(path, MOST_TEXT)), rate, lenient)
        else:
            track = _arrays(path, model, rate, size)
    except (DataError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    return track.fitted(model, lenient)


# ----- Live Link Face -------------------------------------------------------------------------------------


def live_link(text: str, fps: float = FPS, lenient: bool = False) -> Track:
    """Return the track of a CSV file of Live Link Face."""
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(rows) < 2 or not rows[0] or rows[0][0].strip().lower() != "timecode":
        raise DataError("no Live Link Face CSV: it must begin with a column Timecode and have a row for each frame")
    header = [name.strip() for name in rows[0]]
    columns = {name: i for i, name in enumerate(header)}
    known = {name[:1].upper() + name[1:]: name for name in NAMES}
    shapes = {known[_upper(name)]: i for name, i in columns.items() if _upper(name) in known}
    others = {"timecode", "blendshapecount"} | {f"{what}{turn}".lower() for what in _ANGLES for turn in _TURNS}
    unknown = [name for name in header if _upper(name) not in known and name.lower() not in others]
    if unknown and not lenient:
        near = get_close_matches(_upper(unknown[0]), known, n=3)
        hint = f"; near {shown(unknown[0])}: {', '.join(near)}" if near else ""
        raise DataError(f"unknown columns {listed([shown(name) for name in unknown])}{hint}; --lenient leaves them out")
    if not shapes:
        raise DataError("the file has no column of ARKit's expressions, such as JawOpen")
    kept = [(i, row) for i, row in enumerate(rows[1:], 1) if not (lenient and _blank(row, shapes.values()))]
    values = np.array([_numbers(row, i, len(header)) for i, row in kept]).reshape(len(kept), len(header))
    times = _clock([(i, row[0]) for i, row in kept], fps)
    rotations = _angles(values, columns, eyes="eyeLookUpLeft" not in shapes)
    return Track(times, {name: values[:, i] for name, i in shapes.items()}, rotations)


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]


def _blank(row: list[str], columns: Iterable[int]) -> bool:
    """Return whether a row is of a frame in which no face was found."""
    return all(i >= len(row) or not row[i].strip() for i in columns)


def _numbers(row: list[str], number: int, width: int) -> list[float]:
    """Return the numbers of a row; the first column, the time code, counts as 0."""
    if len(row) != width:
        raise DataError(f"row {number} has {len(row)} columns, the header has {width}")
    found = [0.0]
    for text in row[1:]:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"row {number} holds {shown(text)}, not a number; --lenient leaves out rows without a face")
        found.append(value)
    return found


def _clock(codes: list[tuple[int, str]], fps: float) -> Array:
    """Return seconds from the first time code on. A code is hours:minutes:seconds:frames, or plain seconds."""
    seconds: list[float] = []
    for number, code in codes:
        parts = code.strip().split(":")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 4) or not all(math.isfinite(n) and n >= 0 for n in numbers):
            raise DataError(f"row {number} has time code {shown(code)}, must be hours:minutes:seconds:frames")
        h, m, s, f = numbers if len(numbers) == 4 else (0, 0, numbers[0], 0)
        now = 3600 * h + 60 * m + s + f / fps
        if seconds and now < seconds[-1] - 12 * 3600:
            now += 24 * 3600  # past midnight
        if seconds and now <= seconds[-1]:
            raise DataError(f"row {number} at {shown(code)} is not after the row before; is --fps {fps:g} right?")
        seconds.append(now)
    if not seconds:
        raise DataError("no frame shows a face")
    return np.array(seconds) - seconds[0]


def _angles(values: Array, columns: dict[str, int], eyes: bool) -> dict[str, Array]:
    """Return the turns of head and eyes. Eyes that already move by expressions are not turned a second time."""
    rotations: dict[str, Array] = {}
    for what, joint in _ANGLES.items():
        names = [f"{what}{turn}" for turn in _TURNS]
        if all(name in columns for name in names) and (joint == "neck" or eyes):
            rotations[joint] = values[:, [columns[name] for name in names]]
    return rotations


# ----- MediaPipe ------------------------------------------------------------------------------------------


def mediapipe(content: Any, fps: float, lenient: bool = False) -> Track:
    """Return the track of MediaPipe's blend shapes. Frames that carry no `timestamp_ms` are evenly spaced."""
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list) or not frames:
        raise DataError("no frames: a list of lists of {categoryName, score} is needed, or {frames: [...]}")
    rows: list[dict[str, float]] = []
    times: list[float] = []
    for number, frame in enumerate(frames):
        scores = _scores(frame, number)
        if scores is None:
            if not lenient:
                raise DataError(f"frame {number} has no face; --lenient leaves such frames out")
            continue
        rows.append(scores)
        times.append(_moment(frame, number, fps))
    if not rows:
        raise DataError("no frame shows a face")
    names = [name for name in rows[0] if name != "_neutral"]
    if unknown := [name for name in names if name not in NAMES]:
        if not lenient:
            raise DataError(f"unknown names {listed([shown(name) for name in unknown])}; --lenient leaves them out")
        names = [name for name in names if name in NAMES]
    for number, row in enumerate(rows):
        if missing := [name for name in names if name not in row]:
            raise DataError(f"frame {number} lacks {listed(missing)}, which the first frame has")
    return Track(np.array(times) - times[0], {name: np.array([row[name] for row in rows]) for name in names})


def _scores(frame: Any, number: int) -> dict[str, float] | None:
    """Return names and scores of a frame, in one of the forms in which programs save them; None without a face."""
    entries = _inner(frame)
    if entries is None or entries == [] or entries == {}:
        return None
    if not isinstance(entries, dict | list):
        raise DataError(f"frame {number} is a {type(entries).__name__}, must be a list of {{categoryName, score}}")
    pairs = entries.items() if isinstance(entries, dict) else ((_name(e), e.get("score")) for e in entries)
    found = {str(name): score for name, score in pairs if name not in _CLOCKS}
    if not all(isinstance(s, int | float) and not isinstance(s, bool) and math.isfinite(s) for s in found.values()):
        raise DataError(f"frame {number} holds something else than names with finite scores")
    return {name: float(score) for name, score in found.items()}


def _inner(frame: Any) -> Any:
    """Return the list or dict of scores without the layers that programs put around it."""
    while True:
        if isinstance(frame, dict) and (layer := next((key for key in _LAYERS if key in frame), None)):
            frame = frame[layer]
        elif isinstance(frame, list) and len(frame) == 1 and (isinstance(frame[0], list) or "categories" in frame[0]):
            frame = frame[0]
        else:
            return frame


def _name(entry: Any) -> object:
    found = entry.get("categoryName", entry.get("category_name")) if isinstance(entry, dict) else None
    if not isinstance(found, str):
        raise DataError(f"{shown(str(entry))} is no blend shape: it must have categoryName and score")
    return found


def _moment(frame: Any, number: int, fps: float) -> float:
    if isinstance(frame, dict):
        for key, unit in _CLOCKS.items():
            value = frame.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                return float(value) * unit
    return number / fps


# ----- Arrays ---------------------------------------------------------------------------------------------


def _arrays(path: Path, model: HeadModel, fps: float, size: int | None) -> Track:
    if path.suffix.lower() == ".npy":
        try:
            marks = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"no plain array: {error}") from None
        return _followed(model, marks, np.arange(len(marks)) / fps if marks.ndim else np.zeros(0), size)
    arrays = read_npz(path, (), ("landmarks", "times", "expr", *_POSES))
    counts = {name: len(values) if values.ndim else 0 for name, values in arrays.items()}
    if not arrays or len(set(counts.values())) != 1:
        raise DataError(f"expr, poses or landmarks of equally many frames are needed, found {counts or 'none of them'}")
    times = arrays.get("times", np.arange(next(iter(counts.values()))) / fps)
    if "landmarks" in arrays:
        return _followed(model, arrays["landmarks"], times, size)
    return _flame(arrays, times)


def _followed(model: HeadModel, marks: Array, times: Array, size: int | None) -> Track:
    if marks.dtype.kind not in "iuf":
        raise DataError("landmarks must be numbers")
    flat = marks.ndim == 3 and marks.shape[2] == 2
    if flat and size is None and np.nanmax(np.abs(marks), initial=0) > 4:
        raise DataError("landmarks look like pixels; say with --size how large the square picture is")
    seen = marks.astype(np.float64) / (size if flat and size is not None else 1)
    return follow(model, seen, np.asarray(times, np.float64)).track


def _flame(arrays: dict[str, Array], times: Array) -> Track:
    weights: dict[str, Array] = {}
    rotations: dict[str, Array] = {}
    if "expr" in arrays:
        flat = arrays["expr"].reshape(len(times), -1)
        weights = {f"expression{i:03d}": flat[:, i] for i in range(flat.shape[1])}
    for key, joints in _POSES.items():
        if key not in arrays:
            continue
        flat = arrays[key].reshape(len(times), -1)
        if flat.shape[1] != 3 * len(joints):
            raise DataError(f"{key} has {flat.shape[1]} columns, must have {3 * len(joints)}: axis times angle")
        rotations |= {joint: flat[:, 3 * i : 3 * i + 3] for i, joint in enumerate(joints)}
    return Track(np.asarray(times, np.float64), weights, rotations)
