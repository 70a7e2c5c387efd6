"""Reports of scores: scores.json and scores.md, with everything that identifies the measurement.

Importing this module does not import PyTorch, so that a command can check its folder first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamportrait.core.files import new_folder

if TYPE_CHECKING:
    from dreamportrait.metrics.pictures import PictureScores
    from dreamportrait.metrics.r_precision import RPrecision
    from dreamportrait.metrics.scores import Protocol, Scores
    from dreamportrait.metrics.sharpness import Sharpness

JSON, MARKDOWN = "scores.json", "scores.md"
FILES = (JSON, MARKDOWN)
HEAD = ("score", "value", "")
OF_PICTURES = ("count", "num_candidates", "seed", "region", "batch")  # settings that matter for pictures of others
Rows = list[list[str]]


@dataclass(frozen=True)
class Content:
    """The scores of a report, as a table and as values for JSON."""

    rows: Rows
    scores: dict[str, Any]
    protocol: dict[str, Any]

    @classmethod
    def of(cls, scores: "Scores | PictureScores", p: "Protocol", distance: str) -> "Content":
        """distance: the extractor's name."""
        settings = asdict(p)
        if isinstance(scores.clip_score, float):  # PictureScores; importing the class would import PyTorch
            settings = {name: settings[name] for name in OF_PICTURES}
            return cls(picture_rows(scores, distance), scores.as_dict(), settings)
        return cls(rows(scores, p, distance), scores.as_dict(), settings)


def write(folder: Path, content: Content, identity: dict[str, Any], overwrite: bool) -> None:
    """Write both files or none. identity: the models, data and code, see evaluation.py."""
    with new_folder(folder, overwrite, FILES) as staging:
        values = {"scores": content.scores, "protocol": content.protocol, **identity}
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (staging / JSON).write_text(text, encoding="utf-8")
        (staging / MARKDOWN).write_text(markdown(content, identity), encoding="utf-8")


def markdown(content: Content, identity: dict[str, Any]) -> str:
    from dreamportrait.metrics.region import describe

    measured = identity.get("checkpoint") or identity["images"]
    parts = [f"# {measured['source']} on {identity['dataset']['source']}", table(HEAD, content.rows)]
    titles = {"oracle": "Attributes that are shown as captions say", "unsaid": "Unsaid attributes that text leaves"}
    for name, title in titles.items():
        if (found := content.scores.get(name)) is not None:
            parts += [f"## {title}", table(["attribute", "share"], shares(found["by_attribute"]))]
    facts = [["what is judged", describe(content.protocol["region"])]]
    facts += [[name, str(value)] for name, value in _flat({"protocol": content.protocol, **identity})]
    return "\n\n".join([*parts, "## What was measured", table(["what", "value"], facts)]) + "\n"


def shares(by_attribute: Mapping[str, float]) -> Rows:
    return [[name, f"{100 * share:.1f} %"] for name, share in by_attribute.items()]


# Rows of the table.


def rows(s: "Scores", p: "Protocol", distance: str) -> Rows:
    views = ", ".join(f"{view}: {value:.2f}" for view, value in s.clip_score.items())
    prompts = f"{p.prompts_for_diversity} prompts, one portrait of each"
    found = [
        [f"{distance}, also FID3D", f"{s.fid:.4g}", "lower is better; final pictures, their cameras condition nothing"],
        [f"{distance}, raw", f"{s.fid_raw:.4g}", "lower is better; before super-resolution"],
        *_details(s.sharpness),
        ["MSC", f"{s.msc:.2f}", f"mean CLIP score; by degrees from the front {views}"],
        _precision(s.r_precision, "frontal views"),
        *_said(s),
    ]
    if s.unsaid is not None:
        what = f"attributes not named, as without text; {s.unsaid.count} compared"
        found.append(["unsaid kept", f"{100 * s.unsaid.share:.2f} %", what])
    return [
        *found,
        _diverse("prompt diversity", s.prompt_diversity, f"{p.per_prompt} portraits of each prompt"),
        _diverse("identity diversity", s.identity_diversity, prompts),
        [
            "view agreement",
            f"{s.consistency.color:.4f}",
            f"mean difference of colours (-1 to 1) where both views see; depth {s.consistency.depth:.4f}, "
            f"seen by both {100 * s.consistency.seen:.1f} %",
        ],
    ]


def picture_rows(s: "PictureScores", distance: str) -> Rows:
    return [
        [distance, f"{s.fid:.4g}", "lower is better"],
        *_details(s.sharpness),
        ["CLIP score", f"{s.clip_score:.2f}", "100 x cosine between a picture and its caption"],
        _precision(s.r_precision, "pictures"),
        *_said(s),
    ]


def _details(sharpness: "Mapping[str, Sharpness]") -> Rows:
    whole, face = sharpness["all"], sharpness["face"]
    return [
        [
            "sharpness distance",
            f"{whole.distance:.1f}, face {face.distance:.1f}",
            "lower is better; finest details, sees blur and noise; other real pictures "
            f"{whole.real_distance:.1f}, face {face.real_distance:.1f}",
        ],
        [
            "nearest real patch",
            f"{whole.nearest:.1f}, face {face.nearest:.1f}",
            "lower is better; sees ghosts, not blur; other real pictures "
            f"{whole.real_nearest:.1f}, face {face.real_nearest:.1f}",
        ],
    ]


def _precision(r: "RPrecision", what: str) -> list[str]:
    value = f"{100 * r.value:.2f} % ({100 * r.low:.2f} to {100 * r.high:.2f})"
    chance = f"chance is {100 / r.candidates:.4g} %"
    return ["R-Precision", value, f"{what}, 1 of {r.candidates} captions, {r.count} queries; {chance}"]


def _said(s: "Scores | PictureScores") -> Rows:
    if s.oracle is None:
        return []
    return [
        ["all said and shown", f"{100 * s.oracle.complete:.2f} %", "pictures that show all that their caption names"],
        ["said and shown", f"{100 * s.oracle.share:.2f} %", "single attributes, by the oracle"],
    ]


def _diverse(name: str, value: Any, of: str) -> list[str]:
    return [name, f"{value.features:.4f}", f"mean of 1 - cosine over pairs; {of}; colours differ by {value.colors:.4f}"]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [[text.replace("|", "\\|") for text in line] for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _flat(values: dict[str, Any], place: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        key = f"{place}{name}"
        found += _flat(value, f"{key}: ") if isinstance(value, dict) else [(key, value)]
    return found
