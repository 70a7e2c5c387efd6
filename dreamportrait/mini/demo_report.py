"""The demo's report: scores and portraits of each generator, side by side, with the same prompts and seed.

RUN/demo.md     the table
RUN/demo.json   the report of `dreamportrait evaluate` for each column of the table
RUN/demo.png    one row per prompt; the generators from left to right, each in a few views
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
# No prompt is a caption of a training face. The last two combine attributes that no training face has together.
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

Reports = Mapping[str, dict[str, Any]]  # generator's name -> its report


def table(reports: Reports) -> str:
    """Return the scores as a Markdown table with one column per generator."""
    first = next(iter(reports.values()))
    r = first["scores"]["r_precision"]
    lines = {
        f"R-Precision, 1 of {r['candidates']}": ("higher", lambda s: f"{100 * s['r_precision']['value']:.1f} %"),
        "MSC": ("higher", lambda s: f"{s['msc']:.2f}"),
        first["extractor"]["distance"]: ("lower", lambda s: f"{s['fid']:.4f}"),
        "prompt diversity": ("not near 0", lambda s: f"{s['prompt_diversity']['features']:.4f}"),
    }
    if first["scores"]["oracle"] is not None:
        lines["all said is shown"] = ("higher", lambda s: f"{100 * s['oracle']['complete']:.1f} %")
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

{r["count"]} {"unseen " if is_world(data) else ""}captions of {data}; {judge} measures how well pictures match them.
R-Precision is the share of pictures whose own caption is the nearest of {r["candidates"]} captions;
by chance {100 / r["candidates"]:.3g} %. {JSON} has all scores and settings. All portraits below have seed {SEED}.

![one row per prompt, before and after from left to right]({SHEET})
"""


@torch.no_grad()
def draw(sources: Mapping[str, Path], offline: bool) -> Image.Image:
    """Draw all portraits with the same latent, so that only the prompts differ from row to row."""
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
