"""Measure how heads follow captions, and which of the ways to make them is better.

\b
    python eval/heads.py                                        # some minutes: few captions, a quarter of the steps
    python eval/heads.py --captions 100 --effort 1 --split test # to report: some hours on one core
    python eval/heads.py --study shapes --runs 64               # men and women: does the shape follow?
    python eval/heads.py --study portraits --runs 50            # heads fitted to portraits

Writes OUT/heads.md and OUT/results.json. A study continues where it was stopped. docs/heads.md explains
the rows and the numbers.
"""

import json
from pathlib import Path
from typing import Any

import click

from dreamportrait.core.errors import one_message

STUDIES = ("captions", "shapes", "portraits")


@click.command(help=__doc__)
@click.option("--system", type=click.Choice(["morphable"]), default="morphable", show_default=True)
@click.option("--study", type=click.Choice(STUDIES), default="captions", show_default=True)
@click.option("--rows", metavar="NAME,NAME", help="Only these ways to make heads or shapes.  [default: all]")
@click.option("--captions", type=click.IntRange(min=1, max=100), default=2, show_default=True)
@click.option("--effort", type=click.FloatRange(0, 1, min_open=True), default=0.25, show_default=True, help="Of steps.")
@click.option("--split", type=click.Choice(["validation", "test"]), default="validation", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--runs", type=click.IntRange(min=1), default=4, show_default=True, help="Of shapes or portraits.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/heads"), show_default=True)
def main(
    system: str,
    study: str,
    rows: str | None,
    captions: int,
    effort: float,
    split: str,
    seed: int,
    runs: int,
    out: Path,
) -> None:
    with one_message():
        from dreamportrait.core.files import check_writable, write_text
        from dreamportrait.metrics.report import table

        check_writable(out / "heads.md")
        identity: dict[str, Any] = {"system": system, "study": study}
        if study == "captions":
            from dreamportrait.mini.head import prompted

            chosen = tuple(rows.split(",")) if rows else prompted.ROWS
            what = prompted.Study(out, chosen, captions, effort, split, seed)
            prompted.run(what, click.echo)
            found = prompted.scores(what)
            identity |= {"captions": captions, "effort": effort, "split": split, "seed": seed, "judge": "mini/clip-b"}
            tables = [_captions(found, table), _orderings(prompted.verdicts(found), table)]
            results: Any = {row: score._asdict() for row, score in found.items()}
        elif study == "shapes":
            from dreamportrait.mini.head import shapes

            moved = shapes.run(out, runs, tuple(rows.split(",")) if rows else shapes.MODES, click.echo)
            modes = list(dict.fromkeys(each.mode for each in moved))
            results = {mode: shapes.summary([each for each in moved if each.mode == mode]) for mode in modes}
            tables = [_columns(results, table)]
        else:
            from dreamportrait.mini.head import fitted

            results = {"from-portrait": fitted.summary(fitted.run(out, runs, click.echo))}
            tables = [_columns(results, table)]
        text = "\n\n".join([f"`{json.dumps(identity)}`", *tables])
        write_text(out / "heads.md", text + "\n")
        write_text(out / "results.json", json.dumps({"identity": identity, "results": results}, indent=1) + "\n")
    click.echo(text)


def _captions(found: Any, table: Any) -> str:
    head = [
        "row",
        "R-Precision",
        "95 %",
        "said and shown",
        "skin",
        "hair colour",
        "eyewear",
        "length",
        "saturation",
        "noise",
    ]
    lines = []
    for row, s in found.items():
        shares = [s.by_attribute.get(name) for name in ("skin", "hair_color", "eyewear")]
        shown = ["-" if share is None else f"{100 * share:.0f} %" for share in shares]
        span = f"{100 * s.r_precision.low:.0f} to {100 * s.r_precision.high:.0f} %"
        numbers = [f"{s.length:.2f}", f"{s.saturation:.3f}", f"{s.noise:.4f}"]
        lines.append([row, f"{100 * s.r_precision.value:.0f} %", span, f"{100 * s.said:.0f} %", *shown, *numbers])
    return str(table(head, lines))


def _orderings(judged: Any, table: Any) -> str:
    lines = [[f"{score}: {lower} <= {higher}", verdict.word] for score, lower, higher, verdict in judged]
    return str(table(["ordering", "verdict"], lines))


def _columns(results: dict[str, dict[str, float]], table: Any) -> str:
    names = list(next(iter(results.values())))
    return str(table(["", *results], [[name, *(f"{results[key][name]:.3g}" for key in results)] for name in names]))


if __name__ == "__main__":
    main()
