"""What the demo ends with: scores side by side, and portraits of the same prompts and seed side by side.

RUN/demo.md     the table
RUN/demo.json   the report of `dreamportrait evaluate` for each column of it
RUN/demo.png    prompts from top to bottom; generators, each in a few views, from left to right
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreamportrait.core.files import write_text
from dreamportrait.data.names import is_world
from dreamportrait.export.sheets import Row, beside, draw_sheet, save_picture
from dreamportrait.metrics import report
from dreamportrait.systems.dreamportrait.subject import load_subject

MARKDOWN, JSON, SHEET = "demo.md", "demo.json", "demo.png"
# None is a caption of the training faces, and of the last two no face has what they say together.
PROMPTS = (
    "a woman with long red hair and green eyes, wearing a yellow shirt",
    "a woman with long blond hair, glasses and red lipstick",
    "a woman in a purple wide hat and a white top",
    "an old man with a gray beard and glasses, wearing a blue shirt",
    "a man wearing a green cap and a red shirt",
    "a bald man with a black beard and sunglasses",
    "a woman with pink hair and glasses",
    "a man with blue hair and a blue beard",
)
SEED, VIEWS = 0, (-25.0, 0.0, 25.0)  # degrees

Reports = Mapping[str, dict[str, Any]]  # by generator


def table(reports: Reports) -> str:
    """A column for each generator."""
    first = next(iter(reports.values()))
    r = first["scores"]["r_precision"]
    lines = {
        f"R-Precision, 1 of {r['candidates']}": ("higher", lambda s: f"{100 * s['r_precision']['value']:.1f} %"),
        "MSC": ("higher", lambda s: f"{s['msc']:.2f}"),
        first["extractor"]["distance"]: ("lower", lambda s: f"{s['fid']:.4f}"),
        "prompt diversity": ("not near 0", lambda s: f"{s['prompt_diversity']['features']:.4f}"),
    }
    if first["scores"]["oracle"] is not None:
        lines["said and shown"] = ("higher", lambda s: f"{100 * s['oracle']['share']:.1f} %")
    rows = [
        [name, *(show(each["scores"]) for each in reports.values()), better] for name, (better, show) in lines.items()
    ]
    return report.table(["score", *reports, "better"], rows)


def markdown(reports: Reports) -> str:
    first = next(iter(reports.values()))
    r, data, judge = first["scores"]["r_precision"], first["dataset"]["source"], first["judge"]["clip"]
    return f"""# Before and after

{table(reports)}

{r["count"]} {"unseen " if is_world(data) else ""}captions of {data}, judged by {judge}. R-Precision is how often a
picture's own caption is the nearest of {r["candidates"]}; by chance {100 / r["candidates"]:.3g} %. All that was
measured, and how, is in {JSON}. All portraits below are of seed {SEED}.

![prompts from top to bottom, before and after from left to right]({SHEET})
"""


@torch.no_grad()
def draw(sources: Mapping[str, Path], offline: bool) -> Image.Image:
    """Draw the same identity everywhere, so that the words alone make the difference from top to bottom."""
    sheets: list[tuple[str, Image.Image]] = []
    for name, source in sources.items():
        subject = load_subject(str(source), offline=offline).subject
        z = torch.randn(1, subject.config.z_dim, generator=torch.Generator().manual_seed(SEED))
        heads = subject.portray(list(PROMPTS), z.expand(len(PROMPTS), -1), 1.0)
        cameras = subject.config.around(VIEWS)[:, None].expand(-1, len(PROMPTS), -1)  # [V, P, 25]
        found = torch.stack([heads.view(camera).image for camera in cameras], 1)  # [P, V, 3, R, R]
        prompts = PROMPTS if not sheets else [""] * len(PROMPTS)
        sheets.append((name, draw_sheet([Row(*row) for row in zip(prompts, found, strict=True)])))
    return beside(sheets)


def write(folder: Path, reports: Reports, sheet: Image.Image) -> None:
    write_text(folder / JSON, json.dumps(reports, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / MARKDOWN, markdown(reports))
    save_picture(sheet, folder / SHEET, overwrite=True)
