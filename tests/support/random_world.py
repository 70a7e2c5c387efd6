"""Worlds of coloured squares with real identities, which can be trained on without rendering."""

import numpy as np

from dreamportrait.miniworld.attributes import Z_DIM, sample_codes
from dreamportrait.miniworld.edit_pool import EditPool
from dreamportrait.miniworld.edits import draw_edit
from dreamportrait.miniworld.styled_world import StyledWorld, plan
from dreamportrait.miniworld.world import World


def squares(count: int, seed: int = 0) -> np.ndarray:  # [count, 3, 64, 64] uint8
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 4, 4), dtype=np.uint8).repeat(16, 2).repeat(16, 3)


def random_styled_world(count: int, split: str = "train") -> StyledWorld:
    made = plan(split, count)._asdict()
    return StyledWorld(split, squares(count), np.zeros((count, 64, 64), np.float16), **made)


def random_pool(count: int, split: str = "train") -> EditPool:
    return EditPool(split, [draw_edit(split, i) for i in range(count)], squares(count, 1), squares(count, 2))


def random_world(count: int, split: str = "train", seed: int = 0) -> World:
    images = squares(count, seed)
    codes = sample_codes(count, seed)
    assert codes.shape == (count, Z_DIM)
    return World(split, images, np.zeros((count, 64, 64), np.float16), codes, np.zeros((count, 25), np.float32))
