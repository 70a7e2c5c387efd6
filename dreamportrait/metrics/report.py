"""Reports of scores: scores.json and scores.md, with everything that identifies the measurement.

Importing this module does not import PyTorch, so that a command can check its folder first.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamportrait.core.files import new_folder

if TYPE_CHECKING:
    from dreamportrait.metrics.scores import Protocol, Scores

JSON, MARKDOWN = "scores.json", "scores.md"
FILES = (JSON, MARKDOWN)


def write(folder: Path, scores: "Scores", protocol: "Protocol", identity: dict[str, Any], overwrite: bool) -> None:
    """Write both files or none. identity: the models, data and code, see evaluation.py."""
    with new_folder(folder, overwrite, FILES) as staging:
        content = {"scores": scores.as_dict(), "protocol": asdict(protocol), **identity}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (staging / JSON).write_text(text, encoding="utf-8")
        (staging / MARKDOWN).write_text(markdown(scores, protocol, identity), encoding="utf-8")


def markdown(scores: "Scores", p: "Protocol", identity: dict[str, Any]) -> str:
    from dreamportrait.metrics.region import describe

    title = f"# {identity['checkpoint']['source']} on {identity['dataset']['source']}"
    parts = [title, table(["score", "value", ""], rows(scores, p, identity["extractor"]["distance"]))]
    if scores.oracle is not None:
        shares = [[name, f"{100 * share:.1f} %"] for name, share in scores.oracle.by_attribute.items()]
        parts += ["## Attributes that the oracle finds as the captions say", table(["attribute", "share"], shares)]
    facts = [["what is judged", describe(p.region)]]
    facts += [[name, str(value)] for name, value in _flat({"protocol": asdict(p), **identity})]
    return "\n\n".join([*parts, "## What was measured", table(["what", "value"], facts)]) + "\n"


def rows(scores: "Scores", p: "Protocol", distance: str) -> list[list[str]]:
    s, r = scores, scores.r_precision
    views = ", ".join(f"{view}: {value:.2f}" for view, value in s.clip_score.items())
    low, high = 100 * r.low, 100 * r.high
    found = [
        [distance, f"{s.fid:.4g}", "lower is better; final pictures"],
        [f"{distance}, raw", f"{s.fid_raw:.4g}", "lower is better; before super-resolution"],
        ["MSC", f"{s.msc:.2f}", f"mean CLIP score; by degrees from the front {views}"],
        [
            "R-Precision",
            f"{100 * r.value:.2f} % ({low:.2f} to {high:.2f})",
            f"frontal views, 1 of {r.candidates} captions, {r.count} queries; chance is {100 / r.candidates:.4g} %",
        ],
        _diverse("prompt diversity", s.prompt_diversity, f"{p.per_prompt} portraits of each prompt"),
        _diverse(
            "identity diversity", s.identity_diversity, f"{p.prompts_for_diversity} prompts, one portrait of each"
        ),
        [
            "view agreement",
            f"{s.consistency.color:.4f}",
            f"mean difference of colours (-1 to 1) where both views see; depth {s.consistency.depth:.4f}, "
            f"seen by both {100 * s.consistency.seen:.1f} %",
        ],
    ]
    if s.oracle is not None:
        value = f"{100 * s.oracle.share:.2f} %"
        found.append(
            ["said and shown", value, f"attributes by the oracle; all at once {100 * s.oracle.complete:.2f} %"]
        )
    return found


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
