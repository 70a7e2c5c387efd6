"""Further regression for small attributes: each face is learnt together with its double, which differs in one of them.

Regression over whole pictures hardly learns an iris, a moustache or an earring, because they cover few pixels and few
faces have them. A double is the same face, seen by the same camera, with another value of one small attribute. The
difference between both pictures shows nothing but this attribute, and it is learnt relative to its own size, so a
moustache counts as much as a hat.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray as Array
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamportrait.eg3d.triplane import Rendering
from dreamportrait.geometry.images import from_bytes
from dreamportrait.mini.eg3d.warm import Batch, Student, depth_error, detail_weight, regression_losses
from dreamportrait.miniworld.attributes import ATTRIBUTES, Attributes, is_held_out, is_visible, read_code, to_vector
from dreamportrait.miniworld.rendering import rendered
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life

# How often an attribute is chosen, relative to others. Those that are hardest to learn are chosen most.
SMALL = {
    "facial_hair": 6.0,
    "eye_color": 3.0,
    "lipstick": 1.0,
    "earrings": 1.0,
    "age": 1.0,
    "expression": 1.0,
    "eyewear": 1.0,
    "hat": 1.0,
}
SEED, LEARNING_RATE = 6, 1.5e-3
RAYS, WHOLE_EVERY = 512, 6
CHANGE = 0.2  # weight of the differences. With 0.5, this loss outweighs all others at most pixels
LEAST_WANTED = 0.1  # smaller differences than this, as a mean over the rays, count less
LARGEST = 20.0  # larger than any number of a code plus its bias
VISIBLE = 0.04  # difference of colours, in -1 .. 1, that counts as a change
LEAST_CHANGE = 20.0  # sum of the differences over a picture, in 0 .. 255. Smaller ones cannot be learnt


@dataclass(frozen=True)
class Doubles:
    """For each of the first faces of a world: the same face with one small attribute changed."""

    images: Tensor  # [N, 3, R, R] uint8
    vectors: Tensor  # [N, V]
    kinds: Tensor  # [N] number of the attribute in SMALL, -1 where nothing could be changed visibly


def doubles(world: World, count: int, cache: Path, workers: int | None = None) -> Doubles:
    """Render the doubles of the first faces of a world, or read them from the cache."""
    path = cache / f"doubles-{count}.safetensors"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        save_file(_rendered(world, count, workers or os.cpu_count() or 1), unfinished)
        os.replace(unfinished, path)
    return Doubles(**load_file(path))


def _rendered(world: World, count: int, workers: int) -> dict[str, Tensor]:
    rng = np.random.Generator(np.random.PCG64(SEED))
    names = list(SMALL)
    found = [changed(z, rng) for z in world.codes[:count]]
    codes = np.stack([code for code, _ in found])
    kinds = np.array([names.index(name) if name else -1 for _, name in found])
    chunks = rendered(codes, world.cameras[:count], world.images.shape[-1], workers)
    images = np.concatenate([images for images, _ in chunks])
    for i in range(count):  # one by one, so that no large array is made
        if np.abs(images[i].astype(np.int16) - world.images[i]).mean(0).sum() < LEAST_CHANGE:
            kinds[i] = -1
    vectors = np.stack([to_vector(*read_code(z)) for z in codes])
    return {
        name: torch.from_numpy(x).contiguous()
        for name, x in (("images", images), ("vectors", vectors), ("kinds", kinds))
    }


def changed(z: Array, rng: np.random.Generator) -> tuple[Array, str | None]:  # [Z_DIM] -> [Z_DIM], attribute
    """Return the code of the same face with another value of one small attribute, and the name of the attribute.

    If no value of any small attribute can be seen at this face, return the code as it is and None.
    """
    attributes, _ = read_code(z)
    options: dict[str, list[Array]] = {}
    for name in SMALL:
        for value in ATTRIBUTES[name]:
            other = with_value(z, name, value)
            now = read_code(other)[0]
            differs = now[name] != attributes[name] and is_visible(now, name) and is_visible(attributes, name)
            if differs and not is_held_out(now):
                options.setdefault(name, []).append(other)
    if not options:
        return z, None
    odds = np.array([SMALL[name] for name in options])
    name = list(options)[rng.choice(len(options), p=odds / odds.sum())]
    return options[name][rng.integers(len(options[name]))], name


def with_value(z: Array, name: str, value: str) -> Array:  # [Z_DIM] -> [Z_DIM]
    """Return a copy of an identity code that has this value of an attribute, before rules are applied."""
    names = list(ATTRIBUTES)
    before = sum(len(ATTRIBUTES[other]) for other in names[: names.index(name)])
    out = z.copy()
    out[before + ATTRIBUTES[name].index(value)] = LARGEST
    return out


class Twins:
    """A batch of N faces followed by their N doubles, with the places where the two differ."""

    def __init__(self, world: World, others: Doubles, chosen: Tensor, device: torch.device) -> None:
        real = Batch(world, chosen, device)
        self.first = real
        self.image = torch.cat([real.image, from_bytes(others.images[chosen]).to(device)])  # [2N, 3, R, R]
        self.vector = torch.cat([real.vector, others.vectors[chosen].to(device)])  # [2N, V]
        self.camera = real.camera.repeat(2, 1)  # [2N, 25]
        before, after = self.image.chunk(2)
        self.where = (after - before).abs().mean(1, keepdim=True)  # [N, 1, R, R]


def train(work: Path, world: World, student: Student, others: Doubles, *, steps: int, batch: int = 16) -> Student:
    """Continue the regression of stage 1 on pairs of faces and doubles. Return the running average.

    Most steps render only some rays of each picture, half of them where the two pictures of a pair differ. This costs a
    quarter of whole pictures. Every sixth step renders whole pictures, because super-resolution needs them.
    """
    average, device = Ema(student), student.mapper.out.weight.device
    optimizer = torch.optim.Adam(student.parameters(), LEARNING_RATE, betas=(0.9, 0.99))
    odds = torch.tensor([rarity(face) for face in world.attributes[: len(others.kinds)]])
    odds[others.kinds < 0] = 0

    def step(index: int) -> dict[str, Tensor]:
        whole = index % WHOLE_EVERY == WHOLE_EVERY - 1
        chosen = torch.multinomial(odds, batch // 4 if whole else batch // 2)
        losses = (_whole if whole else _rays)(student, Twins(world, others, chosen, device))
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


def _whole(student: Student, twins: Twins) -> dict[str, Tensor]:
    """Return the losses of whole pictures: those of stage 1, and the differences."""
    fake, real, n = student(twins.vector, twins.camera), twins.first, len(twins.where)
    known = regression_losses(Rendering(*(part[:n] for part in fake)), real)
    shown = (twins.where > VISIBLE).repeat(2, 1, 1, 1)
    pixels = ((shown * images).flatten(2).transpose(1, 2) for images in (fake.image, twins.image))  # [2N, R * R, 3]
    double = detail_weight(twins.image[n:]) * (fake.image - twins.image)[n:].abs()
    return {
        "image": known["image"],
        "raw": 0.5 * known["raw"],
        "depth": known["depth"],
        "double": double.mean(),
        "whole_change": CHANGE * relative_difference(*pixels),
    }


def _rays(student: Student, twins: Twins) -> dict[str, Tensor]:
    """Return the losses of some rays of each picture: RAYS anywhere, and RAYS where the pictures of a pair differ."""
    n, size = len(twins.where), student.generator.config.render_resolution
    image, where = (F.interpolate(x, (size, size), mode="area") for x in (twins.image, twins.where))
    anywhere = torch.randint(size * size, (n, RAYS), device=where.device)
    masked = torch.multinomial(where.flatten(1) + 1e-5, RAYS, replacement=True)
    chosen = torch.cat([anywhere, masked], 1).repeat(2, 1)  # [2N, 2 RAYS], the same for both pictures of a pair
    color, depth = student.along_rays(twins.vector, twins.camera, chosen)
    real = _at(image, chosen)
    error = (color - real).abs()  # [2N, 2 RAYS, 3]
    weight = _at(detail_weight(image), chosen)[:, :RAYS]  # [2N, RAYS, 1]
    surface = F.interpolate(twins.first.depth, (size, size), mode="nearest-exact")
    return {
        "color": 1.5 * (weight * error[:, :RAYS]).mean(),
        "detail": error[:, RAYS:].mean(),
        "change": CHANGE * relative_difference(color[:, RAYS:], real[:, RAYS:]),
        "surface": depth_error(depth[:n], _at(surface, chosen[:n]))[:, :RAYS].mean(),
    }


def relative_difference(fake: Tensor, real: Tensor) -> Tensor:  # [2N, M, 3] twice -> []
    """Return the error of the changes from faces to their doubles, relative to the size of the real changes."""
    (fake_before, fake_after), (before, after) = fake.chunk(2), real.chunk(2)
    wanted = after - before
    error = (fake_after - fake_before - wanted).abs().mean((1, 2))
    return (error / wanted.abs().mean((1, 2)).clamp(min=LEAST_WANTED)).mean()


def _at(images: Tensor, chosen: Tensor) -> Tensor:  # [N, C, R, R], [N, M] numbers of pixels -> [N, M, C]
    pixels = images.flatten(2).transpose(1, 2)
    return pixels.gather(1, chosen[..., None].expand(-1, -1, pixels.shape[2]))


def rarity(face: Attributes) -> float:
    """Return how often a face is drawn, relative to others. Faces with small, rare things are drawn more often."""
    return 1.0 + (face["earrings"] == "gold") + 2 * (face["facial_hair"] != "none")
