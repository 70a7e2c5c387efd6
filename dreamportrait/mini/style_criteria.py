"""Acceptance of the free-style system on the miniature world, part by part, by judges that trained nothing.

    python -m dreamportrait.mini.style_criteria --out runs/criteria --page docs/styles.md

editor       mini/ip2p on unseen triples, beside an editor that does nothing
network      mini/i2t-base on heads of mini/eg3d, beside the heads of its own guesses of w
photos       mini/i2t-base on exact fronts of the miniature world, against exact views
learning     `style learn`: seconds and memory, from the command to the style
styles       the learnt styles on unseen faces
instant      instructions alone: styles, and attributes
identity     whether the head of a photo in a style is nearest to the exact styled face of the same person
mixing       the way from one style to another

Each part is written to OUT/PART.json and not measured again. All faces are of test splits or of seeds that nothing was
learnt on.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from dreamportrait.core.errors import one_message
from dreamportrait.core.files import write_text
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.metrics import world_oracle
from dreamportrait.metrics.style_oracle import StyleReader
from dreamportrait.mini import edit_scores
from dreamportrait.mini.diffusion.evaluation import psnr
from dreamportrait.mini.i2t import Recorded, measure
from dreamportrait.mini.learnt_styles import slug
from dreamportrait.mini.style_criteria_page import COUNTS, render
from dreamportrait.miniworld.attributes import ATTRIBUTES, is_visible, read_code
from dreamportrait.miniworld.edits import Edit, draw_edit
from dreamportrait.miniworld.faces import render as draw_face
from dreamportrait.miniworld.grammar import an
from dreamportrait.miniworld.styles import STYLES, Look
from dreamportrait.miniworld.world import RESOLUTION, identities
from dreamportrait.systems.freestyle.adapter import DELTAS, StyleAdapter
from dreamportrait.systems.freestyle.evaluation import identity_rate
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.judges import CLIP, NONE, ORACLE, Judges, load_judges
from dreamportrait.systems.freestyle.learning import work_folder
from dreamportrait.systems.freestyle.network import Prediction
from dreamportrait.systems.freestyle.pipeline import StylePipeline
from dreamportrait.systems.freestyle.prompts import Instruction
from dreamportrait.systems.freestyle.refine import REFINEMENT, Refinement
from dreamportrait.systems.freestyle.study_page import replaced
from dreamportrait.systems.freestyle.unseen import instant_scores, mixing_scores, unseen_scores
from dreamportrait.weights.registry import locate

FIRST = 3_000_000  # seed of the first generated face
BATCH = 25
BEGIN, END = "<!-- criteria: begin -->", "<!-- criteria: end -->"
LEARNT = ("gold statue", "elf")
Values = dict[str, Any]


@dataclass(frozen=True)
class At:
    """Where a part is measured, and on how many faces."""

    out: Path
    count: int

    def style(self, name: str) -> Path:
        return self.out / "styles" / slug(name)


def seeds(count: int) -> list[int]:
    return [FIRST + k for k in range(count)]


def editor(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Score the editor on exact triples of the test split, beside one that does nothing and the exact results."""
    edits = sharp_edits("test", at.count)
    before = pictures([edit.before() for edit in edits])
    exact = pictures([edit.after() for edit in edits])
    made = edit_scores.edited(pipe.editing.editor, before, edits, pipe.model.few_shot.sampling)
    score = partial(edit_scores.scores, edits=edits, oracle=oracle_of(judges))
    return {"edits": at.count, "editor": score(made), "nothing": score(before), "exact": score(exact)}


def sharp_edits(split: str, count: int, kind: str | None = None) -> list[Edit]:
    """Return the first triples whose result is sharp. kind: style, attribute or both; None = all."""
    found: list[Edit] = []
    number = 0
    while len(found) < count:
        edit = draw_edit(split, number)
        number += 1
        if not edit.blur and kind in (None, edit_scores.kind(edit)):
            found.append(edit)
    return found


def network(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Score the network on heads of its generator, beside the heads of its guesses of w."""
    oracle = world_oracle.load(locate("mini/oracle"))
    with tempfile.TemporaryDirectory() as place:
        held_out = Recorded.of(pipe.base.generator, at.count, FIRST, Path(place))
        guesses = PictureTo3D(HeadsOfW(pipe.base), pipe.base.generator)  # type: ignore[arg-type]
        rows = {"network": pipe.base, "guesses_of_w": guesses}
        return {"heads": at.count} | {name: measure(row, held_out, oracle)._asdict() for name, row in rows.items()}


class HeadsOfW(nn.Module):
    """The network's guess of w, in place of its planes: what regression from pictures to w would give."""

    def __init__(self, base: PictureTo3D) -> None:
        super().__init__()
        self.base, self.config = base.i2t, replace(base.i2t.config, around="guess")
        self.mean_planes = base.i2t.mean_planes

    def forward(self, front: Tensor) -> Prediction:  # [N, 3, R, R]
        return self.base(front)._replace(planes=self.mean_planes.expand(len(front), -1, -1, -1, -1))


def photos(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Score the network on exact fronts, against exact views from 25 degrees to both sides."""
    oracle, config = world_oracle.load(locate("mini/oracle")), pipe.base.generator.config
    people = [read_code(code) for code in identities("test", at.count)]
    cameras = config.around([0.0, -25.0, 25.0])
    exact = [pictures([draw(face, traits, camera) for face, traits in people]) for camera in cameras.numpy()]
    parts = [pipe.base.heads(part) for part in exact[0].split(BATCH)]
    made = [torch.cat([as_saved(x.view(camera.expand(len(x), -1)).image) for x in parts]) for camera in cameras]
    read = oracle.read(made[0])
    right = [read[i][n] == face[n] for i, (face, _) in enumerate(people) for n in ATTRIBUTES if is_visible(face, n)]
    return {
        "faces": at.count,
        "psnr_front": psnr(made[0], exact[0]),
        "psnr_25_degrees": (psnr(made[1], exact[1]) + psnr(made[2], exact[2])) / 2,
        "attributes": sum(right) / len(right),
    }


def learning(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Learn styles by the command, and return its seconds and gigabytes. They are kept in OUT/styles."""
    found: Values = {}
    for number, name in enumerate(LEARNT):
        for left in (at.style(name), work_folder(at.style(name))):  # parts of an interrupted one would falsify its time
            shutil.rmtree(left, ignore_errors=True)
        command = [sys.executable, "-m", "dreamportrait", "style", "learn", an(name)]
        command += ["--seed", str(700_000 + number), "--out", str(at.style(name))]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found[name] = {"seconds": time.perf_counter() - began}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kilobytes
    return found | {"gigabytes": peak / 1e6}


def styles(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Score the learnt styles on generated faces."""
    found: Values = {"faces": at.count}
    for name in LEARNT:
        row = unseen_scores(pipe, StyleAdapter.load(at.style(name)), judges, seeds(at.count))
        found[name] = row | {"kilobytes": (at.style(name) / DELTAS).stat().st_size / 1000}
    return found


def instant(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Score instructions without learning, and edits of attributes: as shipped, and without refinement.

    With i2t-any, also what one pass of i2t-base makes.
    """
    one_pass = Refinement(steps=0)
    rows = {"shipped": (pipe, REFINEMENT), "one_pass": (pipe, one_pass)}
    if pipe.instant is not None:
        rows["base"] = (replace(pipe, instant=None), one_pass)
    found: Values = {"faces": at.count, "attributes": edited_attributes(pipe, judges, at.count)}
    for title, (which, how) in rows.items():
        found[title] = {
            x.name: instant_scores(which, an(x.name), judges, seeds(at.count), refinement=how) for x in STYLES
        }
    return found


def edited_attributes(pipe: StylePipeline, judges: Judges, count: int) -> Values:
    """Score the fronts of heads whose photo was edited by instructions that ask for other attributes."""
    edits, front = sharp_edits("test", count, "attribute"), pipe.base.generator.config.around([0.0])
    how, made = pipe.model.few_shot, []
    for number, edit in enumerate(edits):
        photo = pictures([draw(edit.face, edit.traits, front[0].numpy())])
        told = Instruction(edit.instruction, how.wording.negative)
        made.append(pipe.instant_heads(photo, [told], how.sampling, number).view(front).image)
    read = oracle_of(judges).read(as_saved(torch.cat(made)))
    return {
        "obeyed": float(edit_scores.obeyed(edits, read).mean()),
        "kept": float(edit_scores.kept(edits, read).nanmean()),
    }


def identity(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Return how often the head of a photo is nearest, among exact styled faces of 20 people, to the same person's."""
    if judges.scorer is None:
        return {"left_out": f"needs {CLIP}: --clip"}
    people, found = [read_code(code) for code in identities("test", 20)], {}
    camera = pipe.base.generator.config.around([0.0])
    fronts = pictures([draw(face, traits, camera[0].numpy()) for face, traits in people])
    for style in (each for each in STYLES if each.name in LEARNT):
        adapter = StyleAdapter.load(at.style(style.name))
        heads = PictureTo3D(adapter.applied(pipe.base.i2t), pipe.base.generator).heads(fronts)
        made = judges.scorer.image_features(as_saved(heads.view(camera.expand(len(people), -1)).image))
        looks = [Look(style, variant) for variant in range(style.variants)]
        exact = torch.stack([exact_features(judges, people, camera[0].numpy(), look) for look in looks])
        near = (exact @ made.T).argmax(0)  # [K, N] for each pair the hidden variant that is most similar
        numbers = torch.arange(len(people))
        candidates = torch.stack([exact[near[:, n], numbers].roll(-n, 0) for n in range(len(people))])
        found[style.name] = identity_rate(made, candidates)
    return {"people": len(people), "rates": found, "mean": sum(found.values()) / len(found)}


def exact_features(judges: Judges, people: Any, camera: np.ndarray, look: Look) -> Tensor:  # [N, C]
    assert judges.scorer is not None
    return judges.scorer.image_features(pictures([draw(face, traits, camera, look) for face, traits in people]))


def mixing(pipe: StylePipeline, judges: Judges, at: At) -> Values:
    """Score the way from one style to another on some faces."""
    first, second = (StyleAdapter.load(at.style(name)) for name in LEARNT[:2])
    rows = [mixing_scores(pipe, first, second, seed) for seed in seeds(at.count)]
    return {
        "faces": at.count,
        "styles": list(LEARNT[:2]),
        "largest_step": max(row["largest_step"] for row in rows),
        "ends_are_pure": min(row["ends_are_pure"] for row in rows),
    }


def oracle_of(judges: Judges) -> StyleReader:
    assert isinstance(judges.reader, StyleReader)
    return judges.reader


def draw(face: Any, traits: np.ndarray, camera: np.ndarray, look: Look | None = None) -> np.ndarray:  # [3, R, R] uint8
    return draw_face(face, traits, camera, RESOLUTION, look or Look(None)).image.transpose(2, 0, 1)


def pictures(images: list[np.ndarray]) -> Tensor:  # [N, 3, R, R] in -1 .. 1
    return from_bytes(torch.from_numpy(np.stack(images)))


MEASURES: Mapping[str, Callable[[StylePipeline, Judges, At], Values]] = {
    "editor": editor,
    "network": network,
    "photos": photos,
    "instant": instant,
    "learning": learning,
    "styles": styles,
    "identity": identity,
    "mixing": mixing,
}


@click.command(help=__doc__)
@click.option("--parts", metavar="NAME,NAME", default=",".join(MEASURES), help="Only these parts.  [default: all]")
@click.option("--count", type=click.IntRange(2), help="Faces of each part.  [default: those of the page]")
@click.option("--clip", default=NONE, show_default=True, help="The CLIP that judges identity: a folder, or none.")
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Also write the table into this page.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/criteria"))
def main(parts: str, count: int | None, clip: str, page: Path | None, out: Path) -> None:
    with one_message():
        chosen = [name.strip() for name in parts.split(",")]
        if unknown := [name for name in chosen if name not in MEASURES]:
            raise ValueError(f"--parts {parts}: no part {unknown[0]!r}; must be some of {','.join(MEASURES)}")
        pending = [name for name in chosen if not (out / f"{name}.json").exists()]
        if pending:
            pipe, judges = StylePipeline.from_pretrained("mini"), load_judges(ORACLE, clip)
            for name in pending:
                found = MEASURES[name](pipe, judges, At(out, count or COUNTS[name]))
                write_text(out / f"{name}.json", json.dumps(found, indent=1) + "\n")
                click.echo(f"{name}: {json.dumps(found)}")
        text = render({path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))})
        if page is not None:
            write_text(page, replaced(page.read_text(encoding="utf-8"), text, BEGIN, END))
    click.echo(text)


if __name__ == "__main__":
    main()
