"""Tracks: how expressions and joints change over time."""

from dataclasses import dataclass, field

import numpy as np
from numpy import ndarray as Array

from dreamportrait.systems.heads.model import HeadModel


@dataclass(frozen=True, eq=False)
class Track:
    times: Array  # [T] seconds, ascending
    weights: dict[str, Array] = field(default_factory=dict)  # [T] by name of the expression
    rotations: dict[str, Array] = field(default_factory=dict)  # [T, 3] by name of the joint: axis times angle, radians

    def __post_init__(self) -> None:
        times = np.asarray(self.times, np.float64)
        if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or times[0] < 0:
            raise ValueError("times of a track must be a list of finite numbers of seconds from 0 on")
        if len(late := np.flatnonzero(np.diff(times) <= 0)):
            row = int(late[0]) + 1
            raise ValueError(f"times of a track must ascend; row {row} is at {times[row]} after {times[row - 1]}")
        for name, values in (*self.weights.items(), *self.rotations.items()):
            shape = [len(times), 3] if name in self.rotations else [len(times)]
            if list(np.shape(values)) != shape:
                raise ValueError(f"{name}: the track has values of shape {list(np.shape(values))}, must be {shape}")
            if not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise ValueError(f"{name}: the track holds NaN or infinite values, the first in row {row}")

    def check(self, model: HeadModel) -> None:
        """Raise ValueError unless the model has all expressions and joints of the track."""
        for name in self.weights:
            model.expression(name)
        for name in self.rotations:
            model.joint(name)

    def fitted(self, model: HeadModel, lenient: bool = False) -> "Track":
        """Return the track in the names of a model. lenient: leave out what the model does not have.

        Joints may be spelt otherwise, such as left_eye for leftEye.
        """
        spelt = {_plain(name): name for name in model.joint_names}
        rotations = {spelt.get(_plain(name), name): values for name, values in self.rotations.items()}
        weights = dict(self.weights)
        if lenient:
            weights = {name: values for name, values in weights.items() if name in model.expr_names}
            rotations = {name: values for name, values in rotations.items() if name in model.joint_names}
        found = Track(self.times, weights, rotations)
        found.check(model)
        return found

    def at(self, times: Array) -> "Track":  # [F] seconds
        """Return the track at other times, interpolated linearly."""

        def between(values: Array) -> Array:
            columns = np.asarray(values).reshape(len(self.times), -1).T
            mixed: Array = np.stack([np.interp(times, self.times, column) for column in columns], -1)
            return mixed.reshape(len(times), *np.shape(values)[1:])

        weights = {name: between(values) for name, values in self.weights.items()}
        return Track(times, weights, {name: between(values) for name, values in self.rotations.items()})

    def frames(self, fps: int) -> "Track":
        """Return the track at this many frames a second, from its first time to its last."""
        first, last = float(self.times[0]), float(self.times[-1])
        return self.at(first + np.arange(int(np.floor((last - first) * fps + 1e-6)) + 1) / fps)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
