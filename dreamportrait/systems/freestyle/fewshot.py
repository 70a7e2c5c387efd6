"""The few-shot set D_s of a style: edited views of some identities, saved as an ordinary data set.

Picture 0 of each identity is its exact front. The other views are the product of some pitches and some yaws, which are
evenly spaced and need not contain the front. All views of an identity are edited from the same noise.

    OUT/                       the data set (data/folder.py): captions are the styles; attributes name the identity
    OUT/world.json             the plan: everything that the pictures depend on
    OUT.unfinished/            until then: plan.json, and the views that are edited already, in parts

A build that was stopped continues with the parts that are there. The unedited pictures are not stored: seeds and the
generator give them again.
"""

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamportrait.core.errors import DataError, brief
from dreamportrait.core.files import write_text
from dreamportrait.data.folder import WORLD, ImageFolder
from dreamportrait.data.writing import Sample, check_free, is_zip, write_dataset
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.geometry.images import from_bytes, to_bytes
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling
from dreamportrait.systems.freestyle.prompts import Wording
from dreamportrait.weights.hashing import weights_hash
from eg3d_ops._checks import check_int, check_number

MOST_IDENTITIES, MOST_VIEWS = 100, 100
_PLAN = "plan.json"


@dataclass(frozen=True)
class FewShotSettings:
    """Settings of a few-shot set. identities=1 and views=100 are the paper's."""

    identities: int = 10
    views: int = 10  # of each, beside the front
    yaw: float = 30.0  # degrees to either side
    pitch: float = 30.0
    truncation: float = 0.7
    seed: int = 0  # of the first identity and its noise; the next ones count up
    batch: int = 8  # views that are edited at once
    sampling: Sampling = Sampling()
    wording: Wording = Wording()

    def __post_init__(self) -> None:
        for name, most in (("identities", MOST_IDENTITIES), ("views", MOST_VIEWS), ("batch", MOST_VIEWS)):
            if check_int(name, getattr(self, name), 1) > most:
                raise ValueError(f"{name}={getattr(self, name)}: at most {most}")
        for name in ("yaw", "pitch"):
            if not 0 <= check_number(name, getattr(self, name)) < 90:
                raise ValueError(f"{name}={getattr(self, name)}: must be from 0 to below 90 degrees, to either side")
        check_number("truncation", self.truncation)
        check_int("seed", self.seed, 0)

    def cameras(self, config: GeneratorConfig) -> Tensor:  # [1 + views, 25]
        """Return the exact front, then the product of pitches and yaws."""
        rows, columns = grid(self.views)
        yaws = _spread(columns, self.yaw)
        return torch.cat([config.around([0.0]), *(config.around(yaws, pitch) for pitch in _spread(rows, self.pitch))])


def grid(views: int) -> tuple[int, int]:
    """Return the numbers of pitches and of yaws whose product is `views`: as equal as possible, not more pitches."""
    pitches = next(n for n in range(math.isqrt(views), 0, -1) if views % n == 0)
    return pitches, views // pitches


def _spread(count: int, reach: float) -> list[float]:
    """Return evenly spaced angles from -reach to reach. A single one is 0."""
    return [0.0] if count == 1 else [reach * (2 * i / (count - 1) - 1) for i in range(count)]


@dataclass(frozen=True, eq=False)
class FewShot:
    """The edited views of I identities."""

    pixels: Tensor  # [I, 1 + V, 3, R, R] uint8
    cameras: Tensor  # [1 + V, 25]
    styles: list[str]  # I, the words that each was edited with
    seeds: list[int]  # I
    truncation: float
    saturated: Tensor  # [I, 1 + V] share of colours that the editor clipped; large where text_scale is too large

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def images(self) -> Tensor:  # [I, 1 + V, 3, R, R] in -1 .. 1
        return from_bytes(self.pixels)

    @property
    def fronts(self) -> Tensor:  # [I, 3, R, R] in -1 .. 1, edited
        return from_bytes(self.pixels[:, 0])

    def heads(self, generator: TriPlaneGenerator) -> Planes:
        """Return the heads before the edit, from the generator that the set was built with."""
        return draw_heads(generator, self.seeds, self.truncation)


@torch.no_grad()
def draw_heads(generator: TriPlaneGenerator, seeds: Sequence[int], truncation: float) -> Planes:
    """Return the heads that a generator draws for seeds, conditioned on the front camera."""
    device = next(generator.parameters()).device
    front = generator.config.around([0.0]).to(device)
    found = []
    for seed in seeds:  # one by one, so that a head does not depend on the others, not even in rounding
        z = torch.randn(1, generator.config.z_dim, generator=torch.Generator().manual_seed(seed))
        ws = generator.map(z.to(device), front, truncation)
        found.append((generator.synthesize_planes(ws, noise="const"), ws))
    planes, ws = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Planes(generator, planes, ws)


def build(
    generator: TriPlaneGenerator,
    editor: InstructPix2Pix,
    styles: Sequence[str],  # wordings of one style; identities take turns with them
    settings: FewShotSettings,
    out: str | Path,
    *,
    overwrite: bool = False,
    report: Callable[[int], object] = lambda count: None,  # called with the number of views that were added
) -> FewShot:
    """Write the few-shot set of a style to a folder and return it. A set that is there with the same plan is read."""
    out = Path(out)
    if not styles:
        raise ValueError("no style is given; name one, or a file of wordings")
    if is_zip(out):
        raise DataError(f"{out}: a few-shot set is a folder, beside which a build keeps its parts; name one")
    instructions = [settings.wording.instruct(style) for style in styles]  # refuses empty ones before any work
    plan = make_plan(generator, editor, styles, settings)
    if (out / WORLD).is_file() and _read_plan(out / WORLD) == plan:
        return load(out, generator)
    check_free(out, overwrite)
    parts = out.with_name(f"{out.name}.unfinished")
    _begin(parts, plan)
    cameras, made = settings.cameras(generator.config), []
    for k in range(settings.identities):
        seed, head = settings.seed + k, None
        for number, views in enumerate(cameras.split(settings.batch)):
            path = parts / f"{k:03}-{number:03}.safetensors"
            if not path.exists():
                head = head or draw_heads(generator, [seed], settings.truncation)
                seen = torch.cat([picture.colors for picture in head.views(views)])
                noise = editor.fixed_noise(seed)
                edited = editor.edit(seen, instructions[k % len(styles)], noise, settings.sampling)
                _store(path, {"pixels": to_pixels(edited.images), "saturated": edited.saturated.cpu()})
            made.append(load_file(path))
            report(len(views))
    whole = (settings.identities, len(cameras))
    pixels, saturated = (torch.cat([x[key] for x in made]).unflatten(0, whole) for key in ("pixels", "saturated"))
    seeds = [settings.seed + k for k in range(settings.identities)]
    used = [styles[k % len(styles)] for k in range(len(seeds))]
    found = FewShot(pixels, cameras, used, seeds, settings.truncation, saturated)
    save(found, out, plan, overwrite)
    shutil.rmtree(parts)
    return load(out, generator)


def make_plan(
    generator: TriPlaneGenerator, editor: InstructPix2Pix, styles: Sequence[str], settings: FewShotSettings
) -> dict[str, Any]:
    """Return everything that the pictures depend on, as JSON."""
    networks = {"generator": generator, "editor": editor.unet, "vae": editor.vae}
    hashes = {name: weights_hash(network) for name, network in networks.items()}
    return {"kind": "few-shot", "styles": list(styles), "settings": asdict(settings), "weights": hashes}


def save(made: FewShot, out: Path, plan: dict[str, Any], overwrite: bool = False) -> None:
    """Write a few-shot set as an ordinary data set."""

    def samples() -> Any:
        identities = zip(made.pixels.numpy(), made.styles, made.seeds, made.saturated.tolist(), strict=True)
        for pixels, style, seed, shares in identities:
            for image, camera, share in zip(pixels, made.cameras.numpy(), shares, strict=True):
                yield Sample(image, camera, [style], style, {"identity": str(seed), "saturated": f"{share:.4f}"})

    write_dataset(out, samples(), plan, overwrite)


def load(folder: str | Path, generator: TriPlaneGenerator) -> FewShot:
    """Read a few-shot set. Raise DataError if it is none, or was built with another generator."""
    folder = Path(folder)
    plan = _read_plan(folder / WORLD)
    own, used = weights_hash(generator), plan["weights"]["generator"]
    if own != used:
        raise DataError(f"{folder} was built with the generator {used[:12]}, this one is {own[:12]}; build it again")
    data, settings = ImageFolder(folder), plan["settings"]
    count = settings["identities"]
    if len(data) % count or len(data.attributes) != len(data):
        raise DataError(f"{folder} holds {len(data)} pictures of {count} identities; it was changed: build it again")
    views = len(data) // count
    pixels = torch.stack([data[i].image for i in range(len(data))]).unflatten(0, (count, views))
    firsts = range(0, len(data), views)
    return FewShot(
        pixels,
        data.cameras[:views],
        [data.evaluation[i] for i in firsts],
        [int(data.attributes[i]["identity"]) for i in firsts],
        float(settings["truncation"]),
        torch.tensor([float(known["saturated"]) for known in data.attributes]).unflatten(0, (count, views)),
    )


def to_pixels(images: Tensor) -> Tensor:  # [N, 3, R, R] in -1 .. 1 -> uint8
    return torch.from_numpy(np.ascontiguousarray(to_bytes(images).transpose(0, 3, 1, 2)))


def _begin(parts: Path, plan: dict[str, Any]) -> None:
    """Create the folder of parts, or check that it belongs to the same plan."""
    path = parts / _PLAN
    if not path.is_file():
        write_text(path, json.dumps(plan, indent=2) + "\n")
    elif _read_plan(path) != plan:
        raise DataError(f"{parts} holds a part of another set; remove it, or continue with the settings in {path}")


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        known = plan["kind"] == "few-shot" and isinstance(plan["weights"]["generator"], str)
        known = known and plan["settings"]["identities"] >= 1 and plan["settings"]["truncation"] is not None
    except FileNotFoundError:
        raise DataError(f"{path} is not there, so this is no few-shot set; build one") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is of no few-shot set: {brief(error)}; build one") from None
    if not known:
        raise DataError(f"{path} is of no few-shot set; build one")
    return dict(plan)


def _store(path: Path, tensors: dict[str, Tensor]) -> None:
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    save_file({name: value.contiguous() for name, value in tensors.items()}, unfinished)
    os.replace(unfinished, path)
