"""The study of shapes: whether "a man ..." and "a woman ..." move a head to where the world's men and women are."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dreamportrait.guidance.stable_diffusion import load_stable_diffusion
from dreamportrait.mini.head.kept import check_settings, each
from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.optimise import SHAPE, Mode, optimise

TOLD = ("jaw", "neck", "shoulders")  # what the words man and woman say
MODES: tuple[Mode, ...] = ("contrast", "sds")
UNTOLD = ("head_width", "head_height", "nose")
RESTS = (
    *("with short brown hair", "with short black hair", "with green eyes", "with brown eyes"),
    *("with light skin", "with dark skin", "in a blue shirt", "in front of a green background"),
)


class Moved(NamedTuple):
    mode: str
    prompt: str
    signs: dict[str, bool]  # whether each told trait moved the right way
    distance: float  # to the world's mean man or woman, relative to that of the mean head
    untold: dict[str, float]  # of untold traits, in deviations
    largest: float  # weight


def run(out: Path, count: int, modes: Sequence[str] = MODES, report: Callable[[str], object] = print) -> list[Moved]:
    """Tune `count` shapes with each mode: men and women in turn, with other words and seeds.

    The same folder continues an interrupted study.
    """
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise ValueError(f"unknown modes {', '.join(unknown)}; known are {', '.join(MODES)}")
    check_settings(out, {"study": "shapes", "settings": asdict(SHAPE)})
    model, prior = from_pretrained("mini/head"), load_stable_diffusion("mini/diffusion")

    def moved(mode: Mode, i: int) -> dict[str, Any]:
        gender = ("man", "woman")[i % 2]
        prompt = f"a {gender} {RESTS[i // 2 % len(RESTS)]}"
        head = optimise(model, prompt, prior, seed=i, shape=replace(SHAPE, mode=mode), texture=None)
        found = judged(model, head.beta, gender, mode, prompt)
        report(f"{mode}, {i + 1} of {count}: {prompt}, distance {found.distance:.2f}")
        return found._asdict()

    return [
        Moved(**found) for mode in MODES if mode in modes for found in each(out / mode, count, partial(moved, mode))
    ]


def judged(model: HeadModel, beta: Tensor, gender: str, mode: str, prompt: str) -> Moved:  # [m]
    """Compare weights with what the words ask for."""
    assert model.trait_dirs is not None
    sign = 1.0 if gender == "man" else -1.0
    dirs = model.shapedirs.flatten(0, 1)  # [3V, m]
    moved, traits = dirs @ beta, dirs @ model.trait_dirs.T  # [3V], [3V, traits]
    wanted = sign * traits[:, model.shape_names.index("gender")]
    units = torch.linalg.lstsq(traits, moved[:, None]).solution[:, 0]  # how far each trait moved
    signs = {name: sign * float(moved @ traits[:, model.shape_names.index(name)]) > 0 for name in TOLD}
    untold = {name: float(units[model.shape_names.index(name)]) for name in UNTOLD}
    distance = float((moved - wanted).norm() / wanted.norm())
    return Moved(mode, prompt, signs, distance, untold, float(beta.abs().max()))


def summary(found: Sequence[Moved]) -> dict[str, float]:
    """Return the scores of the runs of one mode."""
    untold = {name: sum(run.untold[name] for run in found) / len(found) for name in UNTOLD}
    return {
        "runs": len(found),
        "signs right, %": 100 * sum(sum(run.signs.values()) for run in found) / (len(TOLD) * len(found)),
        "distance, of the start": sum(run.distance for run in found) / len(found),
        "largest mean of an untold trait": max(abs(value) for value in untold.values()),
        "largest weight": max(run.largest for run in found),
    }
