"""The study of heads tuned to captions: ways to make a head, their scores, and the orderings that should hold.

mean       the mean head, whatever the caption says          random     a random shape with the mean texture
clip       CLIP (mini/clip-a) guides in place of diffusion   sds        score distillation for shape and texture
contrast   the default: the contrast for the shape           strong     guidance of 30 in place of 8 for the texture
no-clip    gradients of any length                           no-l2      without decay
whole      the texture itself, not pulled to the mean        ideal      exact shape and texture of the caption's face

The judge is mini/clip-b, which guides none of them. Every head is drawn from the front, before the wall of its face.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from PIL import Image
from torch import Tensor

from dreamportrait.core.files import write_text
from dreamportrait.data.names import FACES
from dreamportrait.geometry.images import from_bytes, to_bytes
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion
from dreamportrait.metrics.oracle import OracleScore
from dreamportrait.metrics.r_precision import first_places, wilson
from dreamportrait.metrics.verdicts import Measured, Verdict, verdict
from dreamportrait.metrics.world_oracle import WorldOracle
from dreamportrait.mini.eg3d.evaluation import front
from dreamportrait.mini.head import grid as mesh
from dreamportrait.mini.head.bake import bake, fine_atlas
from dreamportrait.mini.head.basis import positions, weights_of
from dreamportrait.mini.head.kept import check_settings
from dreamportrait.mini.models import from_pretrained
from dreamportrait.miniworld.attributes import read_code
from dreamportrait.miniworld.heads import Shape
from dreamportrait.miniworld.world import RESOLUTION, World, load
from dreamportrait.systems.heads.head import Head
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.optimise import SHAPE, TEXTURE, Settings, Tuning, optimise
from dreamportrait.systems.heads.render import reduced, render
from dreamportrait.systems.heads.scenes import Scene
from dreamportrait.systems.heads.uv import atlas
from dreamportrait.text.clip_scorer import ClipScorer

ROWS = ("mean", "random", "clip", "sds", "contrast", "strong", "no-clip", "no-l2", "whole", "ideal")
CANDIDATES = 100
SDS = replace(SHAPE, mode="sds")
TUNED: dict[str, tuple[Settings, Settings]] = {
    "sds": (SDS, TEXTURE),
    "contrast": (SHAPE, TEXTURE),
    "strong": (SHAPE, replace(TEXTURE, scale=30.0)),
    "no-clip": (replace(SHAPE, clip=float("inf")), replace(TEXTURE, clip=float("inf"))),
    "no-l2": (replace(SHAPE, decay=0.0), replace(TEXTURE, decay=0.0)),
    "whole": (SHAPE, replace(TEXTURE, decay=0.0, smoothness=0.0)),
}
# (score, row that should be lower, row that should be higher)
ORDERINGS = (
    ("r_precision", "random", "clip"),
    ("r_precision", "clip", "sds"),
    ("r_precision", "sds", "ideal"),
    ("length", "contrast", "no-l2"),
    ("saturation", "contrast", "strong"),
    ("noise", "contrast", "whole"),
)


@dataclass(frozen=True)
class Study:
    out: Path
    rows: tuple[str, ...] = ROWS
    captions: int = 4
    effort: float = 1.0  # share of the steps
    split: str = "validation"
    seed: int = 0


class Tools(NamedTuple):
    model: HeadModel
    prior: StableDiffusion
    world: World
    guide: ClipScorer
    mask: Tensor  # [T, T] texels in use

    @classmethod
    def load(cls, study: Study) -> "Tools":
        model = from_pretrained("mini/head")
        assert model.uv is not None and model.uv_faces is not None and model.mean_texture is not None
        return cls(
            model,
            load_stable_diffusion("mini/diffusion"),
            load(study.split, max(CANDIDATES, FACES[study.split])),
            ClipScorer(*from_pretrained("mini/clip-a")),
            atlas(model.uv, model.uv_faces, model.mean_texture.shape[1]).mask,
        )


class ClipTuning(Tuning):
    """Tuning by the cosine between pictures and the caption."""

    scorer: ClipScorer

    def _guided(self, images: Tensor, scene: Scene, step: int, s: Settings) -> Tensor:
        words = self.scorer.text_features([self.prompt]).detach()
        return (1 - self.scorer.image_features(images) @ words.T).mean()


def make(row: str, tools: Tools, number: int, study: Study) -> Head:
    """Make the head of a caption in one of the ways."""
    model, prompt = tools.model, tools.world.evaluation_caption(number)
    assert model.mean_texture is not None
    plain = Head(model, torch.zeros(model.num_shapes), model.mean_texture, prompt, study.seed)
    seed = study.seed * 1_000_003 + number
    if row == "mean":
        return plain
    if row == "random":
        return replace(plain, beta=torch.randn(model.num_shapes, generator=torch.Generator().manual_seed(seed)))
    if row == "ideal":
        return _ideal(tools, number)
    if row == "clip":
        return _clip_guided(tools, prompt, seed, study.effort)
    if row not in TUNED:
        raise ValueError(f"unknown row {row!r}; known are {', '.join(ROWS)}")
    shape, texture = (_shortened(s, study.effort) for s in TUNED[row])
    return optimise(model, prompt, tools.prior, seed=seed, shape=shape, texture=texture)


def _shortened(s: Settings, effort: float) -> Settings:
    return replace(s, steps=max(1, round(s.steps * effort)))


def _clip_guided(tools: Tools, prompt: str, seed: int, effort: float) -> Head:
    model = tools.model
    assert model.mean_texture is not None
    tuning = ClipTuning(model, tools.prior, prompt, seed)
    tuning.scorer = tools.guide
    beta = tuning.shape(torch.zeros(model.num_shapes), model.mean_texture, _shortened(SHAPE, effort))
    return Head(model, beta, tuning.texture(beta, model.mean_texture, _shortened(TEXTURE, effort)), prompt, seed)


def _ideal(tools: Tools, number: int) -> Head:
    model, grid = tools.model, mesh.build()
    attributes, traits = read_code(tools.world.codes[number])
    points = positions(Shape(attributes, traits), grid)
    beta = weights_of(points, model.v_template.numpy(), model.shapedirs.numpy())
    painted = torch.from_numpy(bake(attributes, traits, grid, fine_atlas(grid)))
    return Head(model, torch.from_numpy(beta).float(), painted)


@torch.no_grad()
def front_of(head: Head, tools: Tools, number: int) -> Array:  # [R, R, 3] uint8
    """Draw a head as the world draws its faces."""
    background = Shape(*read_code(tools.world.codes[number])).background / 255
    drawn = render(
        head.vertices[None], head.model, head.texture, front(1), 2 * RESOLUTION, torch.from_numpy(background).float()
    )
    found: Array = to_bytes(reduced(drawn.image))[0]
    return found


def numbers_of(head: Head, mask: Tensor) -> dict[str, float]:
    """Return the length of the weights, and saturation and total variation of the texture's used texels."""
    texture = head.texture
    used = texture[:, mask]  # [3, P]
    across, down = texture.diff(dim=2).abs().mean(0), texture.diff(dim=1).abs().mean(0)
    variation = across[mask[:, 1:] & mask[:, :-1]].mean() + down[mask[1:] & mask[:-1]].mean()
    return {
        "length": float(head.beta.abs().mean()),
        "saturation": float((used.amax(0) - used.amin(0)).mean()),
        "noise": float(variation),
    }


def run(study: Study, report: Callable[[str], object] = print) -> None:
    """Make all heads that are not there yet. The same command continues an interrupted run."""
    _check_settings(study)
    tools = Tools.load(study)
    for number in range(study.captions):
        for row in study.rows:
            picture = study.out / row / f"{number:03d}.png"
            if picture.is_file():
                continue
            head = make(row, tools, number, study)
            picture.parent.mkdir(parents=True, exist_ok=True)
            write_text(picture.with_suffix(".json"), json.dumps(numbers_of(head, tools.mask)) + "\n")
            unfinished = picture.with_name(f".{picture.name}")
            Image.fromarray(front_of(head, tools, number)).save(unfinished, "PNG")
            unfinished.replace(picture)
            report(f"{row}, caption {number + 1} of {study.captions}")


def _check_settings(study: Study) -> None:
    """Raise DataError if the folder holds heads of other settings."""
    if unknown := [row for row in study.rows if row not in ROWS]:
        raise ValueError(f"unknown rows {', '.join(unknown)}; known are {', '.join(ROWS)}")
    stages = {"shape": asdict(SHAPE), "texture": asdict(TEXTURE)}
    check_settings(study.out, {"effort": study.effort, "split": study.split, "seed": study.seed} | stages)


class RowScores(NamedTuple):
    r_precision: Measured
    said: float  # share of the attributes that captions state and pictures show
    by_attribute: Mapping[str, float]
    length: float
    saturation: float
    noise: float


@torch.no_grad()
def scores(study: Study) -> dict[str, RowScores]:
    """Measure the heads in the folder."""
    world = load(study.split, max(CANDIDATES, FACES[study.split]))
    judge = ClipScorer(*from_pretrained("mini/clip-b"))
    words = judge.text_features([world.evaluation_caption(i) for i in range(CANDIDATES)])
    oracle = WorldOracle(from_pretrained("mini/oracle"), world.evaluation_facts)
    numbers = list(range(study.captions))
    found = {}
    for row in study.rows:
        files = [study.out / row / f"{i:03d}.png" for i in numbers]
        images = from_bytes(torch.from_numpy(np.stack([_pixels(path) for path in files]))).permute(0, 3, 1, 2)
        similarity = judge.image_features(images) @ words.T  # [n, 100]
        own = similarity.gather(1, torch.tensor(numbers)[:, None])
        others = torch.stack([torch.cat([line[:i], line[i + 1 :]]) for i, line in enumerate(similarity)])
        hit = float(first_places(torch.cat([own, others], 1)).mean())
        shown = OracleScore.of(oracle.judge(images, numbers), oracle.names)
        kept = [json.loads(path.with_suffix(".json").read_text()) for path in files]
        rest = {key: float(np.mean([each[key] for each in kept])) for key in ("length", "saturation", "noise")}
        found[row] = RowScores(Measured(hit, *wilson(hit, len(files))), shown.share, shown.by_attribute, **rest)
    return found


def _pixels(path: Path) -> Array:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def verdicts(found: Mapping[str, RowScores]) -> list[tuple[str, str, str, Verdict]]:
    """Return for each ordering: score, lower row, higher row, and whether it holds."""
    judged = []
    for score, lower, higher in ORDERINGS:
        values = [{0: getattr(found[row], score)} if row in found else {} for row in (lower, higher)]
        measured = [{k: v if isinstance(v, Measured) else Measured(v) for k, v in each.items()} for each in values]
        judged.append((score, lower, higher, verdict(measured[0], measured[1])))
    return judged
