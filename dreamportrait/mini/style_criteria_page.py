"""The table of the free-style system's acceptance: what is asked, what was measured, and whether it is met."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dreamportrait.metrics.report import table
from dreamportrait.mini.diffusion.styled import UNSEEN
from dreamportrait.miniworld.styles import STYLES

# Faces, heads or triples of each part.
COUNTS = {
    "editor": 500,
    "network": 500,
    "photos": 500,
    "styles": 50,
    "instant": 50,
    "identity": 20,
    "mixing": 5,
    "learning": 1,
}
NEAR = [style.name for style in STYLES if not style.far]
FAR = [style.name for style in STYLES if style.far]
Parts = Mapping[str, Any]


@dataclass(frozen=True)
class Criterion:
    what: str
    part: str
    value: Callable[[Any], float]
    target: float | None  # None = reported
    unit: str = "%"  # %, dB, s, kB, GB or nothing
    lower: bool = False  # whether the value must be at most the target


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of_styles(key: str) -> Callable[[Any], float]:
    return lambda v: mean([row[key] for row in v.values() if isinstance(row, dict)])


def of_instant(names: list[str], key: str, which: str = "shipped") -> Callable[[Any], float]:
    return lambda v: mean([v[which][name][key] for name in names])


SEEN = [name for name in NEAR if name not in UNSEEN]
CRITERIA = (
    Criterion("1: edits whose change is read", "editor", lambda v: v["editor"]["obeyed"], 0.85),
    Criterion("1: what an edit must keep is kept", "editor", lambda v: v["editor"]["kept"], 0.90),
    Criterion("1: signal to noise of an edit", "editor", lambda v: v["editor"]["psnr"], 20, "dB"),
    Criterion("1: changes read in exact results", "editor", lambda v: v["exact"]["obeyed"], None),
    Criterion("1: kept, as read in exact results", "editor", lambda v: v["exact"]["kept"], None),
    Criterion("3: error of planes", "network", lambda v: v["network"]["plane_error"], 0.15, "", True),
    Criterion("3: front", "network", lambda v: v["network"]["psnr_front"], 22, "dB"),
    Criterion("3: 25 degrees to the side", "network", lambda v: v["network"]["psnr_25_degrees"], 20, "dB"),
    Criterion("3: error of depth", "network", lambda v: v["network"]["depth_error"], 0.02, "", True),
    Criterion("3: attributes as the generator's", "network", lambda v: v["network"]["attributes"], 0.92),
    Criterion("3: front, of the guess of w", "network", lambda v: v["guesses_of_w"]["psnr_front"], None, "dB"),
    Criterion("4: photos, 25 degrees to the side", "photos", lambda v: v["psnr_25_degrees"], 19, "dB"),
    Criterion("4: photos, attributes", "photos", lambda v: v["attributes"], 0.85),
    Criterion("5: `style learn`", "learning", of_styles("seconds"), 120, "s", True),
    Criterion("5: memory", "learning", lambda v: v["gigabytes"], 2, "GB", True),
    Criterion("9: learnt styles, style read", "styles", of_styles("style"), 0.85),
    Criterion("9: learnt styles, attributes kept", "styles", of_styles("kept"), 0.75),
    Criterion("9: size of a style", "styles", of_styles("kilobytes"), 105, "kB", True),
    Criterion("9: a photo in a style", "styles", of_styles("seconds"), 0.1, "s", True),
    Criterion("10: instructions, styles seen, style read", "instant", of_instant(SEEN, "style"), 0.80),
    Criterion("10: instructions, styles held out, style read", "instant", of_instant(list(UNSEEN), "style"), 0.60),
    Criterion("10: one pass alone, styles seen", "instant", of_instant(SEEN, "style", "one_pass"), None),
    Criterion("10: one pass alone, styles held out", "instant", of_instant(list(UNSEEN), "style", "one_pass"), None),
    Criterion("10: one pass of i2t-base, styles seen", "instant", of_instant(SEEN, "style", "base"), None),
    Criterion("10: instructions, attributes kept", "instant", lambda v: v["attributes"]["kept"], 0.75),
    Criterion("10: instructions, attributes obeyed", "instant", lambda v: v["attributes"]["obeyed"], None),
    Criterion("10: seconds", "instant", of_instant(SEEN, "seconds"), 1, "s", True),
    Criterion("10: seconds of one pass alone", "instant", of_instant(SEEN, "seconds", "one_pass"), None, "s"),
    Criterion("11: the same person is nearest, 1 of 20", "identity", lambda v: v["mean"], 0.70),
    Criterion("12: largest step of a mixture", "mixing", lambda v: v["largest_step"], 2, "", True),
    Criterion("12: ends are the pure styles, to the bit", "mixing", lambda v: v["ends_are_pure"], 1),
    Criterion("13: instructions, far styles, style read", "instant", of_instant(FAR, "style"), None),
)


def render(parts: Parts) -> str:
    """Return the table of all criteria, and one of the styles that instructions ask for."""
    rows = [
        [c.what, shown(c.value(parts[c.part]), c.unit), asked(c), verdict(c, c.value(parts[c.part]))]
        if measured(parts, c)
        else [c.what, "not measured", asked(c), ""]
        for c in CRITERIA
    ]
    text = table(["criterion", "measured", "asked", ""], rows)
    if "instant" not in parts:
        return text
    names = {"style": "style read", "kept": "attributes kept", "between_views": "colours between views"}
    found = parts["instant"]["shipped"]
    lines = [[name, *(f"{found[name][key]:.3g}" for key in names)] for name in [*NEAR, *FAR]]
    return f"{text}\n\n{table(['an instruction alone', *names.values()], lines)}"


def measured(parts: Parts, criterion: Criterion) -> bool:
    try:
        criterion.value(parts[criterion.part])
    except KeyError:  # the part, or a model that one of its rows needs, is missing
        return False
    return True


def asked(c: Criterion) -> str:
    return "" if c.target is None else f"{'at most ' if c.lower else ''}{shown(c.target, c.unit)}"


def shown(value: float, unit: str) -> str:
    return f"{100 * value:.0f} %" if unit == "%" else f"{value:.3g} {unit}".strip()


def verdict(c: Criterion, value: float) -> str:
    if c.target is None:
        return ""
    met = value <= c.target if c.lower else value >= c.target
    return "met" if met else "missed"
