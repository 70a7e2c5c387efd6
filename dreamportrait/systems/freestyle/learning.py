"""Learning a style: a few-shot set, a tuning of H on it, and an adapter.

    OUT/                        the adapter's folder at the end, see adapter.py
    OUT.learning/plan.json      everything that the style is learnt from
    OUT.learning/fewshot/       the few-shot set, an ordinary data set, which stays
    OUT.learning/tuning/        log.csv, and until the end state.pt

A call that was stopped is repeated: it continues, and its adapter is that of an uninterrupted one, to the bit.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreamportrait.core.errors import DataError, NonFiniteLoss, brief
from dreamportrait.core.files import write_text
from dreamportrait.core.locks import alone
from dreamportrait.core.signals import Signals
from dreamportrait.export.sheets import Row, draw_sheet
from dreamportrait.systems.freestyle.adapter import Score, StyleAdapter
from dreamportrait.systems.freestyle.evaluation import measure
from dreamportrait.systems.freestyle.fewshot import FewShot, FewShotSettings, build
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix
from dreamportrait.systems.freestyle.perceptual import Perceptual
from dreamportrait.systems.freestyle.tuning import TuneSettings, input_fronts, tune
from dreamportrait.weights.hashing import weights_hash

SHOWN = 4  # identities on a sheet
VIEWS = 4  # in a step of the paper's tuning; the paper does not say
SIDES = (-25.0, 0.0, 25.0)  # degrees
Say = Callable[[str], object]


@dataclass(frozen=True)
class Request:
    """What is to be learnt."""

    styles: tuple[str, ...]  # wordings of one style
    few_shot: FewShotSettings
    tuning: TuneSettings
    perceptual: str = "none"  # the name of the distance, which the plan records


@dataclass(frozen=True)
class Learnt:
    adapter: StyleAdapter
    sheet: Image.Image  # of each identity: the generator's front, the edited front, three views of the styled head
    saturated: float  # share of colours that the editor clipped


def as_in_the_paper(request: Request) -> Request:
    """Return the request with one identity, a hundred views, edited fronts, all weights, and the paper's rate."""
    tuning = replace(of_all_weights(request.tuning), input="edited", lr=0.002, decay=False, w_weight=0.0)
    return replace(request, few_shot=replace(request.few_shot, identities=1, views=100), tuning=tuning)


def of_all_weights(tuning: TuneSettings) -> TuneSettings:
    """Return settings that tune all weights on as many views as these, four in a step."""
    steps = max(1, tuning.steps * tuning.views // VIEWS)
    return replace(tuning, train="all", offset_stride=0, steps=steps, views=VIEWS)


def work_folder(out: Path) -> Path:
    """Return the folder of a style's few-shot set and tuning."""
    return out.with_name(f"{out.name}.learning")


def learn(
    base: PictureTo3D,
    editor: InstructPix2Pix,
    request: Request,
    work: Path,  # see the top of this file
    *,
    base_name: str,
    licence: str,
    perceptual: Perceptual | None = None,
    signals: Signals | None = None,
    say: Say = lambda line: None,
) -> Learnt:
    """Learn a style, or continue to."""
    how, settings = request.few_shot, request.tuning
    busy = ValueError(f"{work} is in use: another process learns this style; wait for it, or name another folder")
    with alone(work / ".lock", busy):
        _begin(work, _plan(base, editor, request))
        total, done = how.identities * (1 + how.views), 0

        def edited(count: int) -> None:
            nonlocal done
            done += count
            say(f"edited {done} of {total} views")

        data = build(base.generator, editor, request.styles, how, work / "fewshot", report=edited)
        tuning = work / "tuning"
        try:
            with signals.collected() if signals else nullcontext():  # a signal lets the step end and saves the state
                tuned = tune(base, data, settings, tuning, perceptual, signals, say)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"{error}, with tune.lr. The edited views in {work / 'fewshot'} stay") from None
        about: dict[str, Any] = {"base_name": base_name, "licence": licence}
        adapter = StyleAdapter.of(tuned, base.i2t, data, how, settings, **about)
        adapter, sheet = scored(adapter, base, data)
        for name in ("state.pt", "state.pt.previous"):
            (tuning / name).unlink(missing_ok=True)
    return Learnt(adapter, sheet, float(data.saturated.mean()))


@torch.no_grad()
def scored(adapter: StyleAdapter, base: PictureTo3D, data: FewShot) -> tuple[StyleAdapter, Image.Image]:
    """Return the adapter with scores that need no judge, and its sheet. Both are of the identities it was learnt on."""
    styled = PictureTo3D(adapter.applied(base.i2t), base.generator)
    fronts = input_fronts(base, data, adapter.about.input)[:SHOWN]
    heads = styled.heads(fronts)
    device, config = fronts.device, base.generator.config
    cameras, images = data.cameras.to(device), data.images[:SHOWN].to(device)
    seen = torch.stack([views.colors for views in heads.views(cameras)]).clamp(-1, 1)  # [I, 1 + V, 3, R, R]
    error = (seen - images).square().mean()
    found = measure(heads, fronts, adapter.about.styles[0], None, None, None)
    scores = [Score("psnr_of_edited_views", round(float(10 * torch.log10(4 / error.clamp(min=1e-10))), 2))]
    scores += [Score(name, round(value, 5)) for name, value in found.as_dict().items()]
    sources = input_fronts(base, data, "source")[:SHOWN]
    rows = []
    sides = heads.views(config.around(SIDES).to(device))
    for k, (source, edits, views) in enumerate(zip(sources, images, sides, strict=True)):
        rows.append(Row(data.styles[k], torch.cat([source[None], edits[:1], views.colors])))
    return replace(adapter, about=replace(adapter.about, scores=tuple(scores))), draw_sheet(rows)


def _plan(base: PictureTo3D, editor: InstructPix2Pix, request: Request) -> dict[str, Any]:
    hashes = {"network": base.i2t, "generator": base.generator, "editor": editor.unet}
    settings = {"styles": list(request.styles), "few_shot": asdict(request.few_shot), "tuning": asdict(request.tuning)}
    return settings | {
        "perceptual": request.perceptual,
        "weights": {name: weights_hash(network) for name, network in hashes.items()},
    }


def _begin(work: Path, plan: dict[str, Any]) -> None:
    """Record the plan, or raise DataError if the folder holds the work on another one."""
    path, wanted = work / "plan.json", json.loads(json.dumps(plan))
    if not path.exists():
        write_text(path, json.dumps(plan, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        different = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no plan of learning: {error}; remove {work}") from None
    if different:
        key = different[0]
        raise DataError(
            f"{work} holds the work on a style with other settings: {key} was {brief(found.get(key))}, now it is "
            f"{brief(wanted.get(key))}; set it back, remove the folder, or name another one"
        )
