"""Where small attributes of a face show: the pixels that change if one attribute is given another value.

Regression over whole pictures hardly learns an iris, lips or an earring, because they cover few pixels. For each face,
one small attribute is changed and the face is rendered again. The difference of both pictures weighs the pixels of an
additional loss, which gives a lip as much influence as a beard.
"""

import os
import secrets
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.geometry.images import antialiased
from dreamportrait.mini.eg3d.warm import Batch, Student, regression_losses
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_visible, read_code
from dreamportrait.miniworld.rendering import rendered
from dreamportrait.miniworld.world import RESOLUTION, World
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life

SMALL = ("eye_color", "lipstick", "facial_hair", "earrings", "age", "expression", "eyewear")
SEED, LEARNING_RATE = 6, 1.2e-3
LARGEST = 20.0  # larger than any number of a code plus its bias
LEAST_CHANGE = 40.0  # sum of differences over a picture, of colours from 0 to 1. Smaller changes cannot be learnt


def detail_masks(world: World, count: int, cache: Path, workers: int | None = None) -> Array:  # [count, R, R] uint8
    """Return, for the first faces of a world, where a random small attribute shows. Computed once, then memory-mapped.

    A face whose changed attribute hardly shows has a mask of zeros.
    """
    path = cache / f"details-{count}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.npy")
        np.save(unfinished, _rendered_masks(world, count, workers or os.cpu_count() or 1))
        os.replace(unfinished, path)
    return np.load(path, mmap_mode="r")


def _rendered_masks(world: World, count: int, workers: int) -> Array:
    rng = np.random.Generator(np.random.PCG64(SEED))
    codes = np.stack([changed(z, rng) for z in world.codes[:count]])
    found = np.empty((count, RESOLUTION, RESOLUTION), np.uint8)
    done = 0
    for images, _ in rendered(codes, world.cameras[:count], RESOLUTION, workers):
        before = world.images[done : done + len(images)].astype(np.int16)
        found[done : done + len(images)] = np.abs(images - before).mean(1)
        done += len(images)
    found[found.sum((1, 2)) < LEAST_CHANGE] = 0
    return found


def changed(z: Array, rng: np.random.Generator) -> Array:  # [Z_DIM] -> [Z_DIM]
    """Return the code of the same face with another value of one small attribute that the face can show."""
    attributes, _ = read_code(z)
    options = []
    for name in SMALL:
        for value in ATTRIBUTES[name]:
            other = with_value(z, name, value)
            now = read_code(other)[0]
            if now[name] != attributes[name] and is_visible(now, name) and is_visible(attributes, name):
                options.append((name, other))
    names = sorted({name for name, _ in options})
    if not names:
        return z
    name = names[rng.integers(len(names))]
    codes = [code for option, code in options if option == name]
    return codes[rng.integers(len(codes))]


def with_value(z: Array, name: str, value: str) -> Array:  # [Z_DIM] -> [Z_DIM]
    """Return a copy of an identity code that has this value of an attribute, before rules are applied."""
    names = list(ATTRIBUTES)
    before = sum(len(ATTRIBUTES[other]) for other in names[: names.index(name)])
    out = z.copy()
    out[before + ATTRIBUTES[name].index(value)] = LARGEST
    return out


def detail_loss(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:  # [N, 3, R, R] twice, [N, 1, R, R] -> []
    """Return the absolute difference of colours where the masks are, as a mean over pictures."""
    error = (mask * (fake - real).abs()).mean((1, 2, 3))
    return (error / mask.mean((1, 2, 3)).clamp(min=1e-6)).mean()


def train(work: Path, world: World, student: Student, masks: Array, *, steps: int, batch: int = 8) -> Student:
    """Continue the regression of stage 1 with the additional loss. Return the running average."""
    average, device = Ema(student), student.mapper.out.weight.device
    optimizer = torch.optim.Adam(student.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    rare = torch.tensor([rarity(face) for face in world.attributes[: len(masks)]])

    def step(index: int) -> dict[str, Tensor]:
        chosen = torch.multinomial(rare, batch)
        real = Batch(world, chosen, device)
        where = torch.from_numpy(masks[chosen.numpy()]).to(device).float()[:, None] / 255  # [N, 1, R, R]
        fake = student(real.vector, real.camera)
        losses = regression_losses(fake, real)
        raw = detail_loss(fake.image_raw, antialiased(real.image, fake.image_raw.shape[-1]), where)
        losses["detail"] = 0.5 * detail_loss(fake.image, real.image, where) + 0.25 * raw
        set_lr(optimizer, cosine(index, steps, LEARNING_RATE, warmup=50))
        optimizer.zero_grad(set_to_none=True)
        (losses["image"] + 0.5 * losses["raw"] + losses["depth"] + losses["detail"]).backward()
        optimizer.step()
        average.update(student, half_life(batch, min(4000, 0.1 * batch * (index + 1))))
        return losses

    state: dict[str, Stateful] = {"student": student, "average": average, "optimizer": optimizer}
    fit(step, state, steps, work, seed=7, save_every=200, log_every=50, title="eg3d-details")
    assert isinstance(average.module, Student)
    return average.module


def rarity(face: Attributes) -> float:
    """Return how often a face is drawn, relative to others. Faces with small, rare things are drawn more often."""
    return 1.0 + 2 * (face["earrings"] == "gold") + (face["lipstick"] == "red") + (face["facial_hair"] != "none")
