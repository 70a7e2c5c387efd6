"""Render docs/ablations.md: our scores next to the paper's, and a verdict for each ordering that the paper reports."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from dreamportrait.metrics.report import table
from dreamportrait.metrics.verdicts import Measured, Verdict, verdict
from dreamportrait.systems.dreamportrait.ablations import disclosure
from dreamportrait.systems.dreamportrait.ablations.rows import (
    BASE,
    CLIP,
    METRICS,
    MINI,
    OURS,
    PRETRAINED,
    WORLDS,
    Claim,
    Metric,
    Row,
    Table,
    tables_of,
    world_of,
)
from dreamportrait.systems.dreamportrait.ablations.study import rows_of_results, sites_of_results

Values = Mapping[str, Mapping[int, Mapping[str, Measured]]]  # by row, seed and metric
_NOT_RUN = "not run"
_UNTRAINED = (PRETRAINED.name, OURS.name)
_INTRO = (
    "`eval/ablations.py` writes this page from its results; none of our numbers below is typed by hand. Each row is "
    "the whole method with one change. All rows are trained from the same pretrained generator on the same number of "
    "images, and measured as [measuring.md](measuring.md) describes, with the same prompts, latents and cameras. "
)
_MINI = (
    "The numbers of the miniature world (drawn faces of 64 x 64, small networks, its own judge) cannot be compared "
    "with the paper's (CelebAText-HQ, 512 x 512). The orderings can: which of two rows of a table has the higher score."
)
_FOLDER = (
    "The paper's numbers are of CelebAText-HQ at 512 x 512, and it names neither its CLIP nor how many captions R-P "
    "chooses from. So the orderings can be compared, and the numbers only as far as both are known to be the same."
)
_RULES = (
    "## How to read the verdicts\n\n"
    "An ordering compares two numbers in one column of the paper's table. Where the paper has no table, it is a "
    "statement in the paper's text. We compare the means over the training seeds that both rows have; +- is the "
    "standard deviation over seeds. With two or more seeds, an ordering **holds** or **does not hold** if the "
    "difference of the means is larger than the standard deviation pooled over both rows; otherwise it is **within "
    "noise**. This is a low bar: with three seeds, two rows without any real difference pass it about three times in "
    "ten, in one direction or the other. With one seed, the difference of R-P is compared with Newcombe's 95 % "
    "interval, computed from both Wilson intervals. This interval does not cover the variation between trainings. The "
    "other metrics have no interval, so for them the verdict only gives the direction."
)


def render(results: Sequence[Mapping[str, Any]], conclusion: str = "") -> str:
    """Return the page as Markdown. conclusion: what somebody who read the results wrote about them."""
    values, tables = measured(results), tables_of(sites_of_results(results))
    distance = results[0]["report"]["extractor"]["distance"] if results else "FID"
    verdicts = {t.title: [(claim, _verdict(values, claim)) for claim in t.claims()] for t in tables}
    intro = _INTRO + (_MINI if not results or results[0]["world"] == MINI else _FOLDER)
    title = ["# Ablations", *([conclusion.strip()] if conclusion.strip() else [])]
    parts = [*title, intro, "## In short", _summary(verdicts), "## What was run", _facts(results)]
    parts += [*_disclosed(results), "## Where training starts and ends", ours(_ends(values), values, distance)]
    for each in tables:
        beside = _beside(each, values, distance)
        parts += [f"## {each.title}", each.note, beside, _verdicts(verdicts[each.title], each)]
    return "\n\n".join([*parts, _RULES, "## The rows", _rows(results)]) + "\n"


def _ends(values: Values) -> tuple[Row, ...]:
    return (PRETRAINED, BASE, OURS) if OURS.name in values else (PRETRAINED, BASE)


def measured(results: Sequence[Mapping[str, Any]]) -> Values:
    """Return the scores of all results, by row, seed and metric. Shares are in percent."""
    found: dict[str, dict[int, dict[str, Measured]]] = defaultdict(dict)
    for result in results:
        scores = result["report"]["scores"]
        r = scores["r_precision"]
        found[result["row"]][result["seed"]] = {
            "fid": Measured(scores["fid"]),
            "msc": Measured(scores["msc"]),
            "r_precision": Measured(100 * r["value"], 100 * r["low"], 100 * r["high"]),
            "diversity": Measured(scores["prompt_diversity"]["features"]),
        }
        if scores["oracle"] is not None:
            found[result["row"]][result["seed"]]["oracle"] = Measured(100 * scores["oracle"]["share"])
    return found


def _verdict(values: Values, claim: Claim) -> Verdict:
    lower, higher = (
        {seed: metrics[claim.metric] for seed, metrics in values.get(row, {}).items()}
        for row in (claim.lower, claim.higher)
    )
    return verdict(lower, higher)


# Tables.


def _beside(t: Table, values: Values, distance: str) -> str:
    """Return a table of our scores, followed by the paper's."""
    papers = [metric for metric in METRICS.values() if any(metric.name in line.paper for line in t.lines)]
    titles = ["", *head(distance), *(f"paper: {metric.label}" for metric in papers)]
    lines = [
        [line.label, *cells(line.row, values), *(f"{line.paper[metric.name]:g}" for metric in papers)]
        for line in t.lines
    ]
    return table(titles, lines)


def ours(rows: Sequence[Row], values: Values, distance: str) -> str:
    """Return a table of our scores. distance: the extractor's name."""
    return table(["", *head(distance)], [[row.what, *cells(row.name, values)] for row in rows])


def head(distance: str) -> list[str]:
    """Return the headings of the columns that cells() fills. distance: the extractor's name."""
    return ["seeds", *(metric.ours.format(distance=distance) for metric in METRICS.values())]


def cells(row: str, values: Values) -> list[str]:
    """Return the number of seeds and our scores of a row."""
    seeds = values.get(row, {})
    if not seeds:
        return ["0", *[_NOT_RUN] * len(METRICS)]
    found = {name: [each[name] for each in seeds.values() if name in each] for name in METRICS}
    return [str(len(seeds)), *(_number(METRICS[name], values) if values else "-" for name, values in found.items())]


def _number(metric: Metric, found: Sequence[Measured]) -> str:
    values, digits = [each.value for each in found], metric.digits
    if len(values) > 1:
        return f"{mean(values):.{digits}f} +- {stdev(values):.{digits}f}"
    (only,) = found
    interval = "" if only.low is None else f" ({only.low:.{digits}f} to {only.high:.{digits}f})"
    return f"{only.value:.{digits}f}{interval}"


# Orderings.


def _verdicts(judged: Sequence[tuple[Claim, Verdict]], t: Table) -> str:
    labels = {line.row: line for line in t.lines}
    lines = []
    for claim, found in judged:
        lower, higher, metric = labels[claim.lower], labels[claim.higher], METRICS[claim.metric]
        numbers = [f" ({line.paper[metric.name]:g})" if metric.name in line.paper else "" for line in (lower, higher)]
        said = f"{metric.label}: {lower.label}{numbers[0]} < {higher.label}{numbers[1]}"
        word = f"**{found.word}**" if found.seeds else found.word
        lines.append([said, _difference(metric, found), str(found.seeds), word])
    return table(["ordering in the paper", "our difference", "seeds", "verdict"], lines)


def _difference(metric: Metric, found: Verdict) -> str:
    if found.difference is None:
        return ""
    text = f"{found.difference:+.{metric.digits}f}"
    return text if found.noise is None else f"{text}, noise {found.noise:.{metric.digits}f}"


def _summary(verdicts: Mapping[str, Sequence[tuple[Claim, Verdict]]]) -> str:
    lines = []
    for title, judged in verdicts.items():
        counts = Counter(found.word for _, found in judged)
        said = "; ".join(f"{word}: {count}" for word, count in counts.most_common())
        failed = [claim for claim, found in judged if found.word in ("does not hold", "reversed, one seed")]
        against = "; ".join(f"{METRICS[c.metric].label}: not {c.lower} < {c.higher}" for c in failed)
        lines.append([title, str(len(judged)), said, against])
    return table(["", "orderings in the paper", "our verdicts", "which do not hold (row names: see The rows)"], lines)


# What was run.


def command(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the command that reproduces these results."""
    if not results:
        return "python eval/ablations.py"
    trained = [result for result in results if result["row"] not in _UNTRAINED]
    first = (trained or results)[0]
    words, settings = ["python eval/ablations.py", f"--world {first['world']}"], first["settings"]
    if first["config"] != world_of(first["world"]).config:
        words.append(f"--config {first['config']}")
    if trained:
        words += [f"--seeds {max(result['seed'] for result in trained) + 1}", f"--images {_stages(first)[-1][1]}"]
    words += [f"--samples {settings['samples']}", f"--split {settings['dataset'].rpartition(':')[2]}"]
    words += [
        f"--{option} {settings[key]}" for option, key in (("clip", "judge"), ("extractor",) * 2) if key in settings
    ]
    return " ".join(words)


def _facts(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return f"Nothing yet. `{command(results)}` trains and measures all rows."
    trained = [result for result in results if result["row"] not in _UNTRAINED]
    report, done = results[0]["report"], {result["row"] for result in results}
    training, measuring = (sum(result["seconds"][name] for result in results) for name in ("training", "measuring"))
    facts = [["command", f"`{command(results)}`"]]
    if trained:
        stages = ", then ".join(f"{images} ({name})" for name, images in _stages(trained[0]))
        facts.append(["images per training", f"{stages}; {trained[0]['config']}"])
        halved = trained[0]["settings"]["optim.ema_images"]
        facts.append(["what is measured", f"the running average of the weights, with a half-life of {halved} images"])
        facts.append(["discriminator", _critic(trained[0]["settings"])])
    count, source = (results[0]["settings"][name] for name in ("samples", "dataset"))
    captions = report["scores"]["r_precision"]["candidates"]
    facts += [
        ["trainings", str(len(trained))],
        ["rows not run", ", ".join(row.name for row in rows_of_results(results) if row.name not in done) or "none"],
        ["samples per measurement", f"{count} from {source}; R-P chooses from {captions} captions"],
        ["distance", report["extractor"]["distance"]],
        ["judge", f"{report['judge']['clip']}, SHA-256 {report['judge']['sha256'][:16]}..."],
        ["code", "; ".join(sorted({_code(result) for result in results}))],
        ["machine", "; ".join(sorted({_machine(result["machine"]) for result in results}))],
        ["machine time", f"{training / 3600:.2f} h of training, {measuring / 3600:.2f} h of measuring"],
    ]
    return table(["", ""], facts)


def _disclosed(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the section on what differs from the paper in every row. It needs a row that was trained."""
    trained = [result["settings"] for result in results if result["row"] not in _UNTRAINED]
    return ["## What differs from the paper in all rows", disclosure.differences(trained[0])] if trained else []


def _critic(settings: Mapping[str, Any]) -> str:
    paper = (
        "The paper does not state its discriminator's input, but without D-SDS its R-P is 27.31, which a generator "
        "cannot learn from a discriminator that ignores text"
    )
    if settings["loss.text_aware_discriminator"]:
        return f"except in row freeze-d, it also judges whether picture and prompt match. {paper}"
    return f"judges pictures only. {paper}"


def _machine(about: Mapping[str, Any]) -> str:
    return f"{about['name']}, {about['threads']} threads, PyTorch {about['torch']}"


def _stages(result: Mapping[str, Any]) -> list[tuple[str, int]]:
    s = result["settings"]
    count = len([key for key in s if key.startswith("stages.") and key.endswith(".images")])
    return [(s[f"stages.{i}.name"], s[f"stages.{i}.images"]) for i in range(count)]


def _code(result: Mapping[str, Any]) -> str:
    code = result["report"]["code"]
    changed = ", with uncommitted changes" if code["uncommitted_changes"] else ""
    return f"{code['version']} {(code['commit'] or 'no commit')[:10]}{changed}"


def _rows(results: Sequence[Mapping[str, Any]]) -> str:
    changed = [(row, f"`{' '.join(row.changes)}`" if row.changes else "") for row in rows_of_results(results)]
    config = results[0]["config"] if results else WORLDS[MINI].config
    example = f"python train.py --config {config} --set model.conditioning.gate=false --set run.name=no-gate"
    weight = (
        "With the weight in row `clip`, the gradient of CLIP's loss at a picture of the pretrained generator has the "
        "same mean length as that of D-SDS; `python eval/ablations.py --clip-weight` measures this weight."
    )
    if CLIP not in rows_of_results(results):
        weight = "Row `clip` keeps `loss.guidance_ratio`, so its gradients at pictures are as long as those of D-SDS."
    return (
        f"{table(['row', 'what', 'settings'], [[row.name, row.what, text] for row, text in changed])}\n\n"
        "`--rows base,no-gate` runs only these two rows. To train a row without measuring it, run `train.py` with the "
        "row's settings:\n\n"
        f"```\n{example}\n```\n\n"
        f"`--plan` prints these commands. {weight} The setting `loss.keep_weight` is the same in all rows; in row "
        "`local` there is no mapper that could move w, so there is nothing for it to keep."
    )
