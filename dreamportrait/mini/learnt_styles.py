"""mini/styles: the styles that come with the package, each learnt by mini/i2t-base on edits of mini/ip2p.

    OUT/gold-statue/, OUT/elf/, ...     adapters, see systems/freestyle/adapter.py
    OUT/sheet.png                       generated faces that no style was learnt on, in all styles

They are learnt as `dreamportrait style learn` does it. A stopped run continues.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dreamportrait.core.files import check_new
from dreamportrait.export.sheets import save_sheet
from dreamportrait.mini.cards import LICENCE, SCORES, SHEET
from dreamportrait.mini.i2t import FEW_SHOT, PERCEPTUAL, TUNING
from dreamportrait.mini.i2t_any import KNOWN, Parts
from dreamportrait.miniworld.grammar import an
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.fewshot import FewShotSettings, draw_heads
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.learning import Request, learn, work_folder
from dreamportrait.systems.freestyle.names import ABOUT, MINI
from dreamportrait.systems.freestyle.tuning import TuneSettings

FIRST, SHOWN_FIRST = 600_000, 610_000  # seeds of the first face that is learnt from, and of the first one on the sheet
SHOWN = 5
TURNED = 20.0  # degrees, on the sheet


def slug(name: str) -> str:
    """Return the name of a style's folder."""
    return name.replace(" ", "-")


def learn_all(
    parts: Parts,
    out: Path,
    work: Path,
    *,
    names: Sequence[str] = KNOWN,
    how: FewShotSettings = FEW_SHOT,
    settings: TuneSettings = TUNING,
    device: str = "cpu",
) -> None:
    """Learn styles and write the folder of their adapters."""
    check_new(out)
    base, editor, perceptual = parts.styled(device), parts.load_editor(device), parts.perceptual(device)
    for number, name in enumerate(names):
        folder = work / slug(name)
        if (folder / ABOUT).is_file():
            continue
        print(f"{name}: style {number + 1} of {len(names)}", flush=True)
        seed = FIRST + number * how.identities
        request = Request((an(name),), replace(how, seed=seed), replace(settings, seed=seed), PERCEPTUAL)
        learnt = learn(
            base, editor, request, work_folder(folder), base_name=MINI, licence=LICENCE, perceptual=perceptual
        )
        learnt.adapter.save(folder)
    for name in names:
        shutil.copytree(work / slug(name), out / slug(name))
    adapters = [StyleAdapter.load(out / slug(name)) for name in names]
    save_sheet(list(shown(base, adapters)), out / SHEET, colors=128)
    facts = {"styles": ", ".join(names), "identities of each": how.identities, "views of each": 1 + how.views}
    (out / SCORES).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def shown(base: PictureTo3D, adapters: Iterable[StyleAdapter]) -> Iterator[Tensor]:  # [SHOWN, 3, R, R]
    """Yield a row of some faces as they are, and one for each style, seen from the side."""
    generator = base.generator
    front, side = (generator.config.around([yaw]).expand(SHOWN, -1) for yaw in (0.0, TURNED))
    plain = draw_heads(generator, [SHOWN_FIRST + k for k in range(SHOWN)], 1.0)
    fronts = plain.view(front.to(plain.planes.device)).image.clamp(-1, 1)
    yield plain.view(side.to(fronts.device)).image
    for adapter in adapters:
        heads = PictureTo3D(adapter.applied(base.i2t), generator).heads(fronts)
        yield heads.view(side.to(fronts.device)).image
