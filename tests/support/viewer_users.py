"""Waiting for users of the viewer, and looking at their pictures."""

import io
import threading
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("viser")

from benchmarks.viewer import User
from dreamportrait.viewer import session
from dreamportrait.viewer.picture import SHARP


def wait(until: Callable[[], bool], seconds: float = 120.0) -> None:
    ended = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if until():
            return
        ended.wait(0.05)
    raise TimeoutError


def after(user: User, act: Callable[[], object]) -> np.ndarray:
    """Return the full picture that comes after an action, when no other one follows."""
    before = count = len(user.pictures)
    act()
    while count != len(user.pictures) or count == before:
        user.wait(lambda u: len(u.pictures) > before and is_full(u.pictures[-1][1]))
        count = len(user.pictures)
        threading.Event().wait(2 * session.REST)
    return read(user.pictures[-1][1])


def is_full(data: bytes) -> bool:
    return min(read(data).shape[:2]) >= SHARP


def read(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Say whether pictures differ by more than JPEG does: a few levels in the mean."""
    return a.shape != b.shape or float(np.abs(a - b).mean()) > 2


def says(text: str) -> Callable[[User], bool]:
    return lambda user: text in user.text()
