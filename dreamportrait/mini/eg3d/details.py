"""Where small attributes of a face show: the pixels that change if one attribute is given another value.

Regression over whole pictures hardly learns an iris, lips or an earring, because they cover few pixels. For each face,
one small attribute is changed and the face is rendered again. The difference of both pictures weighs the pixels of an
additional loss, which gives lips as much influence as a beard.
"""

import os
import secrets
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from torch import Tensor

from dreamportrait.mini.eg3d.warm import Batch, Student, depth_error, detail_weight, regression_losses
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_visible, read_code
from dreamportrait.miniworld.rendering import rendered
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life

SMALL = ("eye_color", "lipstick", "facial_hair", "earrings", "age", "expression", "eyewear")
SEED, LEARNING_RATE = 6, 1.5e-3
RAYS, WHOLE_EVERY = 512, 8
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
    size = world.images.shape[-1]
    found = np.empty((count, size, size), np.uint8)
    done = 0
    for images, _ in rendered(codes, world.cameras[:count], size, workers):
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


def train(work: Path, world: World, student: Student, masks: Array, *, steps: int, batch: int = 16) -> Student:
    """Continue the regression of stage 1 with more weight on small attributes. Return the running average.

    Most steps render only some rays of each picture, half of them where the masks are. This costs a quarter of whole
    pictures. Every eighth step renders whole pictures, because super-resolution needs them.
    """
    average, device = Ema(student), student.mapper.out.weight.device
    optimizer = torch.optim.Adam(student.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    rare = torch.tensor([rarity(face) for face in world.attributes[: len(masks)]])

    def step(index: int) -> dict[str, Tensor]:
        whole = index % WHOLE_EVERY == WHOLE_EVERY - 1
        chosen = torch.multinomial(rare, batch // 2 if whole else batch)
        real = Batch(world, chosen, device)
        where = torch.from_numpy(masks[chosen.numpy()]).to(device).float()[:, None] / 255  # [N, 1, R, R]
        losses = _whole(student, real, where) if whole else _rays(student, real, where)
        set_lr(optimizer, cosine(index, steps, LEARNING_RATE, warmup=50))
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        average.update(student, half_life(batch, min(4000, 0.1 * batch * (index + 1))))
        return losses

    state: dict[str, Stateful] = {"student": student, "average": average, "optimizer": optimizer}
    fit(step, state, steps, work, seed=7, save_every=200, log_every=50, title="eg3d-details")
    assert isinstance(average.module, Student)
    return average.module


def _whole(student: Student, real: Batch, where: Tensor) -> dict[str, Tensor]:
    """Return the losses of whole pictures: those of stage 1, and the colours where the masks are."""
    fake = student(real.vector, real.camera)
    losses = regression_losses(fake, real)
    detail = 0.5 * masked_difference(fake.image, real.image, where)
    return {"image": losses["image"], "raw": 0.5 * losses["raw"], "depth": losses["depth"], "whole_detail": detail}


def _rays(student: Student, real: Batch, where: Tensor) -> dict[str, Tensor]:
    """Return the losses of some rays of each picture: RAYS anywhere, and RAYS where the masks are."""
    count, size = len(real.image), student.generator.config.render_resolution
    image, where = (F.interpolate(x, (size, size), mode="area") for x in (real.image, where))
    anywhere = torch.randint(size * size, (count, RAYS), device=where.device)
    masked = torch.multinomial(where.flatten(1) + 1e-5, RAYS, replacement=True)
    chosen = torch.cat([anywhere, masked], 1)  # [N, M]
    color, depth = student.along_rays(real.vector, real.camera, chosen)
    error = (color - _at(image, chosen)).abs()  # [N, M, 3]
    weight = _at(detail_weight(image), chosen)[:, :RAYS]  # [N, RAYS, 1]
    surface = F.interpolate(real.depth, (size, size), mode="nearest-exact")
    return {
        "color": 1.5 * (weight * error[:, :RAYS]).mean(),
        "detail": error[:, RAYS:].mean(),
        "surface": depth_error(depth, _at(surface, chosen))[:, :RAYS].mean(),
    }


def _at(images: Tensor, chosen: Tensor) -> Tensor:  # [N, C, R, R], [N, M] numbers of pixels -> [N, M, C]
    pixels = images.flatten(2).transpose(1, 2)
    return pixels.gather(1, chosen[..., None].expand(-1, -1, pixels.shape[2]))


def masked_difference(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:  # [N, 3, R, R] twice, [N, 1, R, R] -> []
    """Return the absolute difference of colours where the masks are, as a mean over pictures."""
    error = (mask * (fake - real).abs()).mean((1, 2, 3))
    return (error / mask.mean((1, 2, 3)).clamp(min=1e-6)).mean()


def rarity(face: Attributes) -> float:
    """Return how often a face is drawn, relative to others. Faces with small, rare things are drawn more often."""
    return 1.0 + 2 * (face["earrings"] == "gold") + (face["lipstick"] == "red") + (face["facial_hair"] != "none")
