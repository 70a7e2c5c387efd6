"""A world of coloured squares with real identities, which can be trained on without rendering."""

import numpy as np

from dreamportrait.miniworld.attributes import Z_DIM, sample_codes
from dreamportrait.miniworld.world import World


def random_world(count: int, split: str = "train", seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 4, 4), dtype=np.uint8).repeat(16, 2).repeat(16, 3)
    codes = sample_codes(count, seed)
    assert codes.shape == (count, Z_DIM)
    return World(split, images, np.zeros((count, 64, 64), np.float16), codes, np.zeros((count, 25), np.float32))
