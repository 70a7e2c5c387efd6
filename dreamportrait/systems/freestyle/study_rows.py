"""The rows of the paper's tables 1 and 2 and of figure 8, and the orderings that it reports.

Every row makes a styled head of the same generated face, or edits its views. Importing this module loads nothing heavy.
"""

from typing import NamedTuple

INVERSION, DREAMFUSION, HFGI3D, I2T = "gan-inversion", "dreamfusion", "hfgi3d", "i2t"
UNTRAINED, WITHOUT, VECTOR, ROUGH = "no-pretraining", "no-i2t", "vector", "no-density"
NEW, FIXED, STARTED = "new-noise", "fixed-noise", "started"  # edited views as they are
EDITS = (NEW, FIXED, STARTED)
HEADS = (I2T, INVERSION, HFGI3D, DREAMFUSION, WITHOUT, UNTRAINED, VECTOR, ROUGH)
ROWS = (*HEADS, *EDITS)


class Metric(NamedTuple):
    key: str  # in results
    title: str
    lower: bool = False  # lower is better


class Table(NamedTuple):
    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]  # row, its name in the paper, the paper's numbers
    orders: tuple[tuple[str, tuple[str, ...]], ...]  # a metric's key, and its rows from the worst to the best
    note: str = ""


_CLIP = Metric("clip", "CLIP score")
_STYLE = Metric("style", "style read")
_SECONDS = Metric("seconds", "seconds", lower=True)
_AGREE = Metric("between_views", "colours between views", lower=True)
_ROUGH = Metric("roughness", "roughness", lower=True)
_QUALITY = Metric("distance", "distance to exact styled faces", lower=True)
_KEPT = Metric("kept", "attributes kept")
_BETWEEN = Metric("between_edits", "colours between edited views", lower=True)

_RAISED = (INVERSION, DREAMFUSION, HFGI3D, I2T)
TABLES = (
    Table(
        "Table 1: other methods",
        (_CLIP, _STYLE, _AGREE, _QUALITY, _KEPT, _SECONDS),
        (
            (DREAMFUSION, "DreamFusion", ("0.304", "~40 min")),
            (INVERSION, "3DGAN-Inv", ("0.229", "~3 min")),
            (HFGI3D, "HFGI3D", ("0.310", "~10 min")),
            (I2T, "I2T", ("0.332", "~3 min")),
        ),
        (("clip", _RAISED), ("between_views", _RAISED), ("seconds", (DREAMFUSION, HFGI3D, I2T))),
        "The paper's numbers are its CLIP score and its time. Raters judged consistency there, with the same ranking.",
    ),
    Table(
        "Table 2: parts of the method",
        (_CLIP, _STYLE, _AGREE, _QUALITY, _KEPT),
        (
            (WITHOUT, "without I2T", ("0.251",)),
            (UNTRAINED, "without pretraining", ("0.113",)),
            (VECTOR, "w_s a vector", ("0.282",)),
            (I2T, "whole", ("0.332",)),
        ),
        (("clip", (UNTRAINED, WITHOUT, VECTOR, I2T)),),
    ),
    Table(
        "Figure 8a: the start of editing",
        (_BETWEEN, _STYLE),
        ((NEW, "new noise for each view", ()), (FIXED, "one noise", ()), (STARTED, "one noise, optimised start", ())),
        (("between_edits", EDITS),),
    ),
    Table(
        "Figure 8c: the density loss",
        (_ROUGH, _CLIP),
        ((ROUGH, "without L_dr", ()), (I2T, "whole", ())),
        (("roughness", (ROUGH, I2T)),),
    ),
)


def choose(names: str | None) -> tuple[str, ...]:
    """Return the rows of a comma-separated list, in the usual order. None = all."""
    if names is None:
        return ROWS
    given = [name.strip() for name in names.split(",")]
    if unknown := [name for name in given if name not in ROWS]:
        raise ValueError(f"--rows {names}: no row {unknown[0]!r}; must be some of {','.join(ROWS)}")
    return tuple(row for row in ROWS if row in given)
