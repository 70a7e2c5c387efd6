"""The tables of a study as Markdown: our numbers beside the paper's, and a verdict for each ordering it reports."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dreamportrait.core.errors import DataError
from dreamportrait.metrics.report import table
from dreamportrait.metrics.verdicts import Measured, Verdict, verdict
from dreamportrait.systems.freestyle.study_rows import ROWS, TABLES, Metric, Table

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Values = Mapping[str, Mapping[str, Mapping[int, float]]]  # by row, metric and seed; means over styles and faces
_NONE = "not run"


def read_results(out: Path) -> list[dict[str, Any]]:
    """Return all results of a study."""
    found = []
    for path in sorted((out / "results").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["row"] not in ROWS or not isinstance(result["scores"], dict):
                raise ValueError("it lacks a known row or scores")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no result of a study: {error}; delete it") from None
        found.append(result)
    if not found:
        raise DataError(f"{out} holds no results; run the study first")
    return found


def values_of(results: Sequence[Mapping[str, Any]], distances: Mapping[str, Mapping[int, float]]) -> Values:
    """Return the mean of each metric over styles and faces. distances: of all pictures of a row and seed together."""
    lists: dict[str, dict[str, dict[int, list[float]]]] = {}
    for result in results:
        for metric, value in result["scores"].items():
            seeds = lists.setdefault(result["row"], {}).setdefault(metric, {})
            seeds.setdefault(int(result["seed"]), []).append(float(value))
    found = {
        row: {metric: {seed: mean(numbers) for seed, numbers in seeds.items()} for metric, seeds in metrics.items()}
        for row, metrics in lists.items()
    }
    for row, by_seed in distances.items():
        found[row]["distance"] = dict(by_seed)
    return found


def render(results: Sequence[Mapping[str, Any]], distances: Mapping[str, Mapping[int, float]]) -> str:
    """Return all tables and verdicts."""
    values = values_of(results, distances)
    styles, seeds = sorted({each["style"] for each in results}), {each["seed"] for each in results}
    faces = {(each["style"], each["face"], each["seed"]) for each in results}
    head = f"Measured on {len(faces)} faces in {len(styles)} styles ({', '.join(styles)}), {len(seeds)} seeds."
    return "\n\n".join([head, *(_section(each, values) for each in TABLES)]) + "\n"


def _section(t: Table, values: Values) -> str:
    paper = len(t.rows[0][2])
    titles = ["", *(["paper"] if paper == 1 else ["paper: CLIP", "paper: time"][:paper]), *(m.title for m in t.metrics)]
    lines = [[name, *own, *(_cell(values, row, metric) for metric in t.metrics)] for row, name, own in t.rows]
    names = {row: name for row, name, _ in t.rows}
    metrics = {metric.key: metric for metric in t.metrics}
    claims = [
        (metrics[key], worse, better, judged(values, metrics[key], worse, better))
        for key, order in t.orders
        for worse, better in pairwise(order)
    ]
    said = [
        [metric.title, f"{names[better]} better than {names[worse]}", found.word, _numbers(found)]
        for metric, worse, better, found in claims
    ]
    parts = [f"### {t.title}", table(titles, lines), *([t.note] if t.note else [])]
    return "\n\n".join([*parts, table(["measure", "the paper's ordering", "here", "difference"], said)])


def judged(values: Values, metric: Metric, worse: str, better: str) -> Verdict:
    """Return whether a row that is better in the paper is better here, by the rules of the project's ablations."""
    sign = -1.0 if metric.lower else 1.0
    sides = (values.get(row, {}).get(metric.key, {}) for row in (worse, better))
    lower, higher = ({seed: Measured(sign * value) for seed, value in side.items()} for side in sides)
    return verdict(lower, higher)


def _cell(values: Values, row: str, metric: Metric) -> str:
    numbers = list(values.get(row, {}).get(metric.key, {}).values())
    if not numbers:
        return _NONE
    spread = f" ± {stdev(numbers):.2g}" if len(numbers) > 1 else ""
    return f"{mean(numbers):.4g}{spread}"


def _numbers(found: Verdict) -> str:
    if found.difference is None:
        return ""
    noise = "" if found.noise is None else f", noise {found.noise:.2g}"
    return f"{found.difference:.3g}{noise}"


def replaced(page: str, measured: str, first: str = BEGIN, last: str = END) -> str:
    """Return a page with other text between its marks."""
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise DataError(f"the page lacks the lines {first} and {last}, between which the tables are written")
    return f"{before}{first}\n{measured.rstrip()}\n{last}{after}"
