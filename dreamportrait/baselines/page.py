"""Render the tables of docs/baselines.md from results: costs, scores, and the paper's orderings with verdicts."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

from dreamportrait.baselines.names import CLIP_W, LIFTING, METHODS, ONE_PASS, SDS, SDS_W, SJC
from dreamportrait.metrics.report import table
from dreamportrait.metrics.verdicts import Measured, Verdict, verdict

LABELS = {
    ONE_PASS: "DreamPortrait, one pass",
    SDS: "Stable-DreamFusion style",
    SJC: "Score Jacobian Chaining",
    SDS_W: "SDS over w of EG3D",
    CLIP_W: "CLIP over w of EG3D",
    LIFTING: "diffusion picture, then PTI",
}


class Metric(NamedTuple):
    name: str
    label: str
    digits: int
    better: int  # 1 = higher is better, -1 = lower


METRICS = (
    Metric("fid", "FID", 3, -1),
    Metric("msc", "MSC", 2, 1),
    Metric("r_precision", "R-P, %", 1, 1),
    Metric("oracle", "said and shown, %", 1, 1),
    Metric("sharpness", "sharpness, distance", 1, -1),
    Metric("color", "views: colour error", 4, -1),
    Metric("depth", "views: depth error", 4, -1),
)
COSTS = (Metric("busy", "seconds", 2, -1), Metric("memory", "memory, MB", 0, -1))
ALL = {metric.name: metric for metric in (*METRICS, *COSTS)}


class Claim(NamedTuple):
    """The one pass is better than another method in a metric."""

    source: str
    metric: str
    other: str


# Table 1 compares with lifting (PTI). Figure 6 compares with optimisation by eye: "former methods perform poorly and
# generate unrealistic visual results", "leading to semantic inconsistencies". Figure 7 compares cost.
PAPER = (
    *(Claim("Table 1", metric, LIFTING) for metric in ("fid", "msc", "r_precision")),
    *(Claim("Figure 6", metric, other) for other in (SDS, SJC) for metric in ("fid", "r_precision")),
    *(Claim("Figure 7", cost, other) for other in (SDS, SJC, LIFTING) for cost in ("busy", "memory")),
)
# Methods that the paper does not compare with. They know as much of faces as the one pass.
OURS = tuple(Claim("ours", name, other) for other in (SDS_W, CLIP_W) for name in ("fid", "msc", "r_precision", "busy"))

Values = Mapping[str, Mapping[int, Mapping[str, Measured]]]  # by method, seed and metric


def measured(content: Mapping[str, Any]) -> Values:
    """Return all scores by method, seed and metric. Shares are in percent."""
    found: dict[str, dict[int, dict[str, Measured]]] = defaultdict(dict)
    for each in content["results"]:
        r, method = each["r_precision"], each["method"]
        values = {
            "fid": Measured(each["fid"]),
            "msc": Measured(each["msc"]),
            "r_precision": Measured(100 * r["value"], 100 * r["low"], 100 * r["high"]),
            "sharpness": Measured(each["sharpness"]["distance"]),
            "color": Measured(each["consistency"]["color"]),
            "depth": Measured(each["consistency"]["depth"]),
            "busy": Measured(each["busy"]),
            "memory": Measured(each["peak_mb"] + content["weights_mb"][method]),
        }
        if each["oracle"] is not None:
            values["oracle"] = Measured(100 * each["oracle"]["share"])
        found[method][each["seed"]] = values
    return found


def scores(values: Values) -> str:
    return _table(values, METRICS)


def costs(values: Values) -> str:
    return _table(values, COSTS)


def orderings(values: Values, claims: Sequence[Claim] = (*PAPER, *OURS)) -> str:
    lines = []
    for claim in claims:
        found, metric = judged(values, claim), ALL[claim.metric]
        sign = ">" if metric.better > 0 else "<"
        said = f"{metric.label}: one pass {sign} {claim.other}"
        lines.append([claim.source, said, _difference(metric, found), str(found.seeds), f"**{found.word}**"])
    return table(["from", "the one pass is better", "difference", "seeds", "verdict"], lines)


def judged(values: Values, claim: Claim) -> Verdict:
    mine, other = (
        {seed: each[claim.metric] for seed, each in values.get(name, {}).items() if claim.metric in each}
        for name in (ONE_PASS, claim.other)
    )
    return verdict(other, mine) if ALL[claim.metric].better > 0 else verdict(mine, other)


def _table(values: Values, metrics: Sequence[Metric]) -> str:
    lines = [
        [name, LABELS[name], str(len(values[name])), *(_cell(values[name], metric) for metric in metrics)]
        for name in METHODS
        if name in values
    ]
    return table(["method", "", "seeds", *(metric.label for metric in metrics)], lines)


def _cell(seeds: Mapping[int, Mapping[str, Measured]], metric: Metric) -> str:
    found = [each[metric.name].value for each in seeds.values() if metric.name in each]
    if not found:
        return ""
    text = f"{mean(found):.{metric.digits}f}"
    return text if len(found) < 2 else f"{text} +- {stdev(found):.{metric.digits}f}"


def _difference(metric: Metric, found: Verdict) -> str:
    if found.difference is None:
        return ""
    text = f"{found.difference:.{metric.digits}f}"
    return text if found.noise is None else f"{text}, noise {found.noise:.{metric.digits}f}"


def render(content: Mapping[str, Any]) -> str:
    """Return the tables with what was run, as Markdown."""
    values, machine, code = measured(content), content["machine"], content["code"]
    seconds = "by the clock" if machine["device"] == "cuda" else "CPU seconds of all threads"
    facts = [
        ["seconds", f"{seconds}, median over prompts; the models are loaded before"],
        ["memory", "weights of the networks that a method needs, and the largest peak beyond them"],
        ["prompts", f"the first {content['prompts']} evaluation captions of {content['dataset']}"],
        ["R-P", f"chooses from {content['results'][0]['r_precision']['candidates']} captions" if values else ""],
        ["FID", f"{content['distance']}; as many real pictures have {content['floor']:.3f}"],
        ["judge", f"{content['judge']['clip']}, SHA-256 {content['judge']['sha256'][:16]}..."],
        ["machine", f"{machine['name']}, {machine.get('threads', '-')} threads, PyTorch {machine['torch']}"],
        ["code", f"{code['version']} {(code['commit'] or 'no commit')[:10]}"],
    ]
    parts = ["## Cost of a head", costs(values), "## Quality", scores(values), "## Orderings", orderings(values)]
    return "\n\n".join([*parts, "## What was run", table(["", ""], facts)]) + "\n"
