"""Paths of cameras around a head, for videos: a swing from side to side, an ellipse, or keys from a file.

    orbit(config, 90)               from the front to the right, to the left and back
    ellipse(config, 90)             yaw and pitch on an ellipse, the usual motion in videos of EG3D
    from_file(config, "path.csv", 90)

Angles follow `cameras.orbit`: degrees, 0 at the front, positive to the right and upwards. `orbit`, `ellipse` and files
whose last key repeats the first give closed paths: the frame after the last one is the first one.

A file is CSV with a header, or JSON with a list of objects. Keys are evenly spaced in time.

    yaw,pitch,fov                   [{"yaw": -20, "pitch": 0},
    -20,0,18.8                       {"yaw": 0, "pitch": 15, "fov": 12},
    0,15,12                          {"yaw": 20, "pitch": 0}]
    20,0,18.8

`fov` may be left out: it is the diagonal field of view in degrees, 18.837 in the training pictures.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from dreamportrait.core.errors import shown
from dreamportrait.geometry.cameras import FOV, intrinsics_from_fov
from eg3d_ops._checks import check_int, check_number

MAX_BYTES = 2**20  # of a file of keys
MAX_KEYS = 10_000
_SUFFIXES = (".csv", ".json")


class Surroundings(Protocol):
    """Places cameras at the distance of the training cameras. The generator's configuration does."""

    def around(self, yaw: Sequence[float], pitch: float = 0.0) -> Tensor: ...  # [V, 25]


class Key(NamedTuple):
    yaw: float  # degrees
    pitch: float
    fov: float = FOV


def along(motion: str | Path, config: Surroundings, frames: int) -> Tensor:  # [frames, 25]
    """Return the path of this name, "orbit" or "ellipse", or that of the keys in a file."""
    if motion == "orbit":
        return orbit(config, frames)
    if motion == "ellipse":
        return ellipse(config, frames)
    if not Path(motion).is_file():
        raise ValueError(f"path {motion}: must be orbit, ellipse or a file of camera keys, and no such file is there")
    return from_file(config, motion, frames)


def orbit(
    config: Surroundings,
    frames: int,
    yaw_range: tuple[float, float] = (-25.0, 25.0),  # degrees; about as far as training cameras go
    pitch: float = 0.0,
) -> Tensor:  # [frames, 25]
    """Return a closed path that starts in the middle of `yaw_range`, turns to its ends and comes back, slowing there.

    It is no full turn, because a generator of portraits has not seen the back of a head.
    """
    first, last = (check_number("yaw_range", angle) for angle in yaw_range)
    turn = _turn(frames)
    yaw = (first + last) / 2 + (last - first) / 2 * turn.sin()
    return _placed(config, yaw, torch.full_like(yaw, check_number("pitch", pitch)))


def ellipse(
    config: Surroundings,
    frames: int,
    yaw: float = 20.0,  # half axes in degrees; EG3D's videos use about these
    pitch: float = 9.0,
) -> Tensor:  # [frames, 25]
    """Return a closed path on which yaw and pitch follow an ellipse around the front. It starts above the front."""
    turn = _turn(frames)
    return _placed(config, check_number("yaw", yaw) * turn.sin(), check_number("pitch", pitch) * turn.cos())


def from_file(config: Surroundings, path: str | Path, frames: int) -> Tensor:  # [frames, 25]
    """Return a smooth path through the keys of a file, which the head of this module describes.

    Between two keys, angles stay between those of the keys. If the last key repeats the first, the path is closed.
    """
    return through(config, read_keys(path), frames)


def through(config: Surroundings, keys: Sequence[Key], frames: int) -> Tensor:  # [frames, 25]
    """Return a smooth path through keys, at least one."""
    check_int("frames", frames, 1)
    values = torch.tensor(keys, dtype=torch.float64)  # [K, 3]
    closed = len(keys) > 2 and keys[0] == keys[-1]
    steps = frames if closed else max(frames - 1, 1)  # an open path ends on its last key
    times = torch.arange(frames, dtype=torch.float64) / steps * (len(keys) - 1)
    yaw, pitch, fov = _interpolated(values, times, closed).unbind(1)
    cameras = _placed(config, yaw, pitch)
    cameras[:, 16:] = torch.stack([intrinsics_from_fov(angle).flatten() for angle in fov.tolist()])
    return cameras


def _turn(frames: int) -> Tensor:  # [frames] from 0 to just before a full turn, in radians
    return torch.arange(check_int("frames", frames, 1), dtype=torch.float64) * (2 * math.pi / frames)


def _placed(config: Surroundings, yaw: Tensor, pitch: Tensor) -> Tensor:  # [T], [T] -> [T, 25]
    pairs = zip(yaw.tolist(), pitch.tolist(), strict=True)
    return torch.cat([config.around([right], above) for right, above in pairs])


def _interpolated(values: Tensor, times: Tensor, closed: bool) -> Tensor:  # [K, 3], [T] in 0 .. K - 1 -> [T, 3]
    """Interpolate by cubic Hermite curves that do not leave the range of neighbouring values.

    The slope at a value is the harmonic mean of the slopes at its sides, or 0 where these differ in sign (Fritsch and
    Butland 1984).
    """
    if len(values) == 1:
        return values.expand(len(times), -1)
    slopes = values.diff(dim=0)  # [K - 1, 3]
    ends = (slopes[-1:], slopes[:1]) if closed else (slopes[:1], slopes[-1:])
    before, after = torch.cat([ends[0], slopes]), torch.cat([slopes, ends[1]])  # [K, 3] each
    same = before * after > 0
    at = torch.where(same, 2 * before * after / torch.where(same, before + after, 1.0), 0.0)
    i = times.long().clamp(max=len(values) - 2)
    t = (times - i)[:, None]
    return (
        values[i] * (1 + 2 * t) * (1 - t) ** 2
        + values[i + 1] * t**2 * (3 - 2 * t)
        + at[i] * t * (1 - t) ** 2
        - at[i + 1] * t**2 * (1 - t)
    )


# ----- Files of keys --------------------------------------------------------------------------------------


def read_keys(path: str | Path) -> list[Key]:
    """Read the keys of a CSV or JSON file."""
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: a file of camera keys must end in {' or '.join(_SUFFIXES)}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes; a file of camera keys has at most {MAX_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _csv_rows(text) if path.suffix.lower() == ".csv" else json.loads(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_KEYS:
        raise ValueError(f"{path} must hold a list of 1 to {MAX_KEYS} camera keys; see `dreamportrait video --help`")
    return [_key(row, f"{path}, key {number}") for number, row in enumerate(rows, 1)]


def _csv_rows(text: str) -> list[dict[str, Any]]:
    """Return the rows of a table with a header. Empty cells are left out."""
    table = csv.DictReader(io.StringIO(text), strict=True, skipinitialspace=True)
    return [{str(name).strip(): cell for name, cell in row.items() if cell not in ("", None)} for row in table]


def _key(row: object, where: str) -> Key:
    if not isinstance(row, dict) or not {"yaw", "pitch"} <= set(row) <= set(Key._fields):
        found = shown(str([*row] if isinstance(row, dict) else row))
        raise ValueError(f"{where}: needs yaw and pitch, and may have fov, all in degrees; got {found}")
    key = Key(**{name: _degrees(value, f"{where}: {name}") for name, value in row.items()})
    if not (abs(key.yaw) <= 360 and -90 < key.pitch < 90 and 0 < key.fov < 180):
        raise ValueError(
            f"{where}: yaw {key.yaw:g} must be within -360 .. 360, pitch {key.pitch:g} between -90 and 90, "
            f"fov {key.fov:g} between 0 and 180 degrees"
        )
    return key


def _degrees(value: object, where: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{where} must be a number, got {shown(repr(value))}") from None
    if not math.isfinite(number):
        raise ValueError(f"{where} must be a finite number, got {number}")
    return number
