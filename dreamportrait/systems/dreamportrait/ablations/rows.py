"""The rows of the paper's tables 2a, 2b, 3a, 3b and of figure 9: what each row changes, and the paper's results.

The whole method is the last row of every table. It is trained only once.

Two things depend on what is trained. The rows of table 3b name the first third and the first two thirds of the places
for adapters: 2 and 4 of the paper's six, 1 and 2 of the miniature generator's four. The strength of CLIP's loss is a
measured weight on the miniature world, and follows from loss.guidance_ratio where the whole method has one.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple


class World(NamedTuple):
    config: str  # of the whole method, from the root of the repository
    dataset: str  # as --dataset of `dreamportrait evaluate`, without the split
    changes: tuple[str, ...] = ()  # settings of all rows


MINI = "mini"
WORLDS = {MINI: World("configs/dreamportrait/mini_paper.yaml", "miniworld")}
FULL_CONFIG = "configs/dreamportrait/celebatext_hq_paper.yaml"
MINI_SITES = (4, 8, 16, 32)  # resolutions of the blocks that an adapter may follow


def world_of(name: str) -> World:
    """Return the world of a name, or that of a prepared data set, whose folder is given in place of a name."""
    return WORLDS.get(name) or World(FULL_CONFIG, name, ("data.kind=folder", f"data.path={name}"))


# With this weight, the gradient of CLIP's loss at a picture of the pretrained generator has the same mean length as
# that of D-SDS with the settings below. `python eval/ablations.py --clip-weight` measures it again, see clip_weight.py.
CLIP_WEIGHT = 15.2
CLIP_WEIGHT_FOR: dict[str, Any] = {
    "model.pretrained": "mini/eg3d",
    "text.clip": "mini/clip-a",
    "guidance.source": "mini/diffusion",
    "guidance.scale": 8.0,
    "guidance.t_min": 0.3,
    "guidance.t_max": 0.98,
    "guidance.weight": "sigma_squared",
    "guidance.rescale": 0.5,
    "guidance.views": False,
    "loss.guidance_weight": 0.2,
}

# The settings of the whole method. Each row changes one of them.
WHOLE: dict[str, Any] = {
    "guidance.kind": "sds",
    "guidance.clip": None,
    "model.conditioning.pooling": True,
    "model.conditioning.gate": True,
    "model.conditioning.global_path": True,
    "model.conditioning.local_path": True,
    "model.conditioning.adapters": None,
    "model.freeze_generator": False,
    "model.freeze_discriminator": False,
}


class Row(NamedTuple):
    name: str
    what: str
    changes: tuple[str, ...] = ()  # settings, as for --set of train.py
    trained: bool = True


PRETRAINED = Row("pretrained", "the pretrained generator, before any training", trained=False)
OURS = Row("ours", "ours: the shipped `mini`, whose mapper holds a text prior; no D-SDS", trained=False)
BASE = Row("base", "the whole method: D-SDS, 3D-aware gated attention, all adapters, both paths, all weights trained")
CLIP = Row("clip", "CLIP guidance in place of D-SDS", ("guidance.kind=clip", f"loss.guidance_weight={CLIP_WEIGHT}"))
CLIP_BY_RATIO = CLIP._replace(changes=("guidance.kind=clip",))


def rows_of(sites: Sequence[int], by_ratio: bool) -> tuple[Row, ...]:
    """Return all rows, for a generator with these places for adapters. by_ratio: guidance has loss.guidance_ratio."""
    return (
        PRETRAINED,
        BASE,
        Row("no-guidance", "no guidance: the GAN loss alone", ("guidance.kind=none",)),
        CLIP_BY_RATIO if by_ratio else CLIP,
        Row(
            "no-pooling",
            "no 3D-aware pooling: a token sees the other planes at its own pixel only",
            ("model.conditioning.pooling=false",),
        ),
        Row("no-gate", "no gate; attention's last layer is zero at the start", ("model.conditioning.gate=false",)),
        Row("freeze-g", "the pretrained generator is frozen", ("model.freeze_generator=true",)),
        Row("freeze-d", "the discriminator is frozen", ("model.freeze_discriminator=true",)),
        *(_first_adapters(sites[:count]) for count in fewer(len(sites))),
        Row("global", "only the semantics mapper gets the text", ("model.conditioning.local_path=false",)),
        Row("local", "only the adapters get the text", ("model.conditioning.global_path=false",)),
    )


def rows_in(world: str, sites: Sequence[int], by_ratio: bool) -> tuple[Row, ...]:
    """Return the rows of a world: in the miniature one the shipped model stands beside them."""
    rows = rows_of(sites, by_ratio)
    return (*rows, OURS) if world == MINI else rows


def fewer(sites: int) -> tuple[int, ...]:
    """Return a third and two thirds of the places for adapters: at least one, all different, and not all of them."""
    first = max(1, sites // 3)
    return tuple(count for count in (first, max(first + 1, 2 * sites // 3)) if count < sites)


def _first_adapters(resolutions: Sequence[int]) -> Row:
    count = len(resolutions)
    blocks = [f"{r} x {r}" for r in resolutions]
    said = {1: "one adapter, after the block of {}", 2: "two adapters, after the blocks of {}"}
    what = said.get(count, f"{count} adapters, after the blocks of {{}}").format(
        " and ".join([", ".join(blocks[:-1]), blocks[-1]] if count > 1 else blocks)
    )
    return Row(f"adapters-{count}", what, (f"model.conditioning.adapters=[{','.join(map(str, resolutions))}]",))


ALL = rows_in(MINI, MINI_SITES, by_ratio=False)
ROWS = {row.name: row for row in ALL}


class Metric(NamedTuple):
    name: str
    label: str  # the name in the paper
    ours: str  # the heading of our column; {distance} is the extractor's name
    digits: int


METRICS = {
    metric.name: metric
    for metric in (
        Metric("fid", "FID", "{distance}, lower is better", 4),
        Metric("msc", "MSC", "MSC", 2),
        Metric("r_precision", "R-P", "R-P, %", 1),
        Metric("diversity", "prompt diversity", "prompt diversity", 3),
        Metric("oracle", "said and shown", "said and shown, %", 1),
    )
}


class Line(NamedTuple):
    row: str
    label: str  # the name in the paper
    paper: dict[str, float]  # the paper's scores, by metric


class Claim(NamedTuple):
    """The claim that a metric is lower for one row than for another."""

    metric: str
    lower: str
    higher: str


class Table(NamedTuple):
    title: str
    lines: tuple[Line, ...]
    note: str
    said: tuple[Claim, ...] = ()  # claims in the paper's text

    def claims(self) -> tuple[Claim, ...]:
        """Return the claims of the text and every ordering of two numbers in one column."""
        found = []
        for metric in METRICS:
            for pair in combinations([line for line in self.lines if metric in line.paper], 2):
                lower, higher = sorted(pair, key=lambda line: line.paper[metric])
                if lower.paper[metric] < higher.paper[metric]:
                    found.append(Claim(metric, lower.row, higher.row))
        return (*self.said, *found)


def _paper(fid: float, msc: float, r_precision: float) -> dict[str, float]:
    return {"fid": fid, "msc": msc, "r_precision": r_precision}


_BEFORE_3B = (
    Table(
        "Table 2a: guidance",
        (
            Line("no-guidance", "w/o D-SDS", _paper(21.77, 16.69, 27.31)),
            Line("clip", "w/ CLIP", _paper(25.39, 18.93, 35.66)),
            Line("base", "w/ D-SDS", _paper(28.47, 20.72, 66.31)),
        ),
        "The paper explains that alignment moves a generator away from its start, so FID rises with R-P. It specifies "
        "neither its CLIP loss nor the weight of that loss. Here the loss is 1 - cosine, weighted so that its "
        "gradient at a picture has the same mean length as that of D-SDS. One CLIP guides, another one judges.",
    ),
    Table(
        "Table 2b: 3D-aware gated attention",
        (
            Line("no-pooling", "w/o 3D", _paper(28.97, 20.59, 65.88)),
            Line("no-gate", "w/o gate", _paper(28.13, 20.39, 63.62)),
            Line("base", "w/ both", _paper(28.47, 20.72, 66.31)),
        ),
        'The paper\'s text says that the gate "improves the image quality". The FID in its table says the opposite. '
        "We compare with the table.",
    ),
    Table(
        "Table 3a: trained networks",
        (
            Line("freeze-g", "Freeze G", _paper(357, 16.34, 25.31)),
            Line("freeze-d", "Freeze D", _paper(247, 18.93, 44.69)),
            Line("base", "Unfreeze Both", _paper(33, 20.26, 57.38)),
        ),
        "The paper trained these rows for fewer iterations than those of table 2; here all rows see the same number "
        "of images. The paper's MSC of the whole method is 20.26 in this table and 20.46 in table 3b, with the same "
        "FID and R-P.",
    ),
)
_FIGURE_9 = Table(
    "Figure 9, right: hierarchical condition",
    (Line("global", "w/ global", {}), Line("local", "w/ local", {}), Line("base", "both", {})),
    'The paper shows pictures and no numbers. It says that the global path alone "synthesizes a fixed identity '
    'given a prompt", that the local path alone generates "diverse identities" but not "semantic-aligned" ones, '
    "and that both are necessary. We read these statements as orderings of prompt diversity, R-P and MSC.",
    (
        Claim("diversity", "global", "local"),
        Claim("diversity", "global", "base"),
        Claim("r_precision", "local", "base"),
        Claim("msc", "local", "base"),
    ),
)
_PAPER_3B = {2: _paper(58, 20.29, 53.94), 4: _paper(41, 20.42, 57.31), 6: _paper(33, 20.46, 57.38)}
_NOTE_3B = "The paper does not say which adapters it left out; here the adapters at the lowest resolutions are kept."


def tables_of(sites: Sequence[int]) -> tuple[Table, ...]:
    """Return the paper's tables and figure, for a generator with these places for adapters."""
    n, counts = len(sites), fewer(len(sites))
    pairs = [(paper, count, f"adapters-{count}") for paper, count in zip((2, 4), counts, strict=False)]
    lines = [
        Line(row, f"{paper} of 6" if n == 6 else f"{paper} of 6 (ours: {count} of {n})", _PAPER_3B[paper])
        for paper, count, row in (*pairs, (6, n, "base"))
    ]
    room = (
        ""
        if n == 6
        else f"The paper's generator has room for six adapters (resolutions 4 to 256), this one for {n} ({sites[0]} to "
        f"{sites[-1]}), so {_listed([count for _, count, _ in (*pairs, (6, n, ''))])} stand for "
        f"{_listed([paper for paper, _, _ in (*pairs, (6, n, ''))])}. "
    )
    return (*_BEFORE_3B, Table("Table 3b: number of adapters", tuple(lines), room + _NOTE_3B), _FIGURE_9)


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])])


TABLES = tables_of(MINI_SITES)
