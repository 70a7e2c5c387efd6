"""Tests of the study of the baselines: resuming, settings, costs, scores and the page."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_baselines import config, oracle, tools
from tiny_evaluation import make_judge
from tiny_training import Pictures

from dreamportrait.baselines import study as studies
from dreamportrait.baselines.heads import VIEWS, Cost, Seen, load, look, save, stacked
from dreamportrait.baselines.names import LIFTING, METHODS, ONE_PASS, SDS
from dreamportrait.baselines.page import OURS, PAPER, Claim, judged, measured, render
from dreamportrait.baselines.scores import Yardstick, measure, nearest
from dreamportrait.baselines.study import Job, Study
from dreamportrait.baselines.tools import Tools
from dreamportrait.geometry.views import Heads
from dreamportrait.metrics.extractors import ClipExtractor

PICTURES = Pictures(24)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return tools(tmp_path_factory.mktemp("tools"))


def study(folder: Path, **changes: Any) -> Study:
    values = {"methods": (ONE_PASS, SDS), "prompts": 2, "seeds": 2} | changes
    return Study(folder / "out", config(), "faces", **values)


class Maker:
    """Makes every head by the one pass and notes the jobs. It stops at a given one."""

    def __init__(self, given: Tools, stop: Job | None = None) -> None:
        self.given, self.stop, self.made = given, stop, list[Job]()

    def __call__(self, job: Job, prompt: str) -> Heads:
        if job == self.stop:
            raise KeyboardInterrupt
        assert prompt == PICTURES.evaluation_caption(job.number)
        self.made.append(job)
        pipe = self.given.pipe
        return pipe.generator.portray(self.given.latent(job.seed, job.number), pipe.encode_prompt(prompt))


def yardstick(folder: Path, given: Tools, count: int = 2) -> Yardstick:
    judge = make_judge(folder)
    return Yardstick(PICTURES, judge, ClipExtractor(judge), oracle(), given.pipe.generator.config, count)


# Heads.


def test_a_stored_head_is_the_same(tmp_path: Path, given: Tools) -> None:
    cameras = given.pipe.generator.config.around(VIEWS)
    head = Maker(given)(Job(ONE_PASS, 0, 0), PICTURES.evaluation_caption(0))
    seen = look(head, cameras, Cost(2.0, 1.5, 30.0))
    save(seen, tmp_path / "a" / "head.safetensors")
    found = load(tmp_path / "a" / "head.safetensors")
    assert found.cost == Cost(2.0, 1.5, 30.0)
    assert torch.equal(found.images, seen.images) and torch.equal(found.depth, seen.depth)
    front = head.view(cameras[1][None]).image
    # Rounding to 8 bits moves a colour by at most one step of 1 / 127.5.
    assert (found.images[1] - front[0].clamp(-1, 1)).abs().max() <= 1 / 127.5 + 1e-6
    assert [len(view.image) for view in stacked([found, found])] == [2, 2, 2]


# Running.


@pytest.mark.lengthy
def test_a_study_that_was_stopped_continues(tmp_path: Path, given: Tools) -> None:
    made, stop = study(tmp_path), Job(SDS, 0, 1)
    first = Maker(given, stop)
    with pytest.raises(KeyboardInterrupt):
        studies.run(made, PICTURES, given, lambda text: None, first)
    assert first.made == [Job(ONE_PASS, 0, 0), Job(ONE_PASS, 0, 1), Job(SDS, 0, 0)]
    said, second = list[str](), Maker(given)
    studies.run(made, PICTURES, given, said.append, second)
    assert second.made == list(made.jobs())[3:] and second.made[0] == stop
    assert said[0].startswith("[4/8] sds, seed 0, prompt 1: ")
    studies.run(made, PICTURES, given, said.append, third := Maker(given))
    assert third.made == []


def test_heads_of_other_settings_are_refused(tmp_path: Path, given: Tools) -> None:
    made = study(tmp_path, methods=(SDS,), seeds=1)
    studies.run(made, PICTURES, given, lambda text: None, Maker(given))
    with pytest.raises(
        ValueError, match=r"study\.json: heads of sds were made with steps 40, now it is 7; set it back"
    ):
        studies.check(replace(made, config=config(sds={"steps": 7})), PICTURES)
    studies.check(replace(made, config=config(sjc={"steps": 7})), PICTURES)  # of another method


@pytest.mark.parametrize(
    ("prompts", "message"),
    [(1, "--prompts 1: must be at least 2"), (5, "has 24 pictures, and 30 are compared with 3 views of each head")],
)
def test_wrong_numbers_of_prompts(tmp_path: Path, prompts: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        studies.check(study(tmp_path, prompts=prompts), PICTURES)


def test_cost_is_that_of_the_work(given: Tools) -> None:
    def make() -> Heads:
        held = torch.ones(40 * 2**18)  # 40 MB
        torch.randn(400, 400) @ torch.randn(400, 400)
        del held
        return Maker(given)(Job(ONE_PASS, 0, 0), PICTURES.evaluation_caption(0))

    _, cost = studies.timed(make, torch.device("cpu"))
    assert cost.seconds > 0 and cost.busy > 0
    assert cost.peak_mb > 30  # of 40; the allocator may reuse pages that it holds


# Scores.


@pytest.mark.lengthy
def test_results_of_complete_methods(tmp_path: Path, given: Tools) -> None:
    made = study(tmp_path, seeds=1)
    studies.run(made, PICTURES, given, lambda text: None, Maker(given))
    Job(SDS, 0, 1).path(made.out).unlink()
    content = studies.results(made, yardstick(tmp_path, given), _with_networks(given))
    (only,) = content["results"]
    assert (only["method"], only["seed"]) == (ONE_PASS, 0)
    assert only["oracle"]["share"] == 0.5 and only["r_precision"]["candidates"] == 24
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    sheet = studies.sheet(made, PICTURES, shown=2)
    assert sheet.width > sheet.height > 0
    assert "| one-pass | DreamPortrait, one pass | 1 |" in render(content)


def _with_networks(given: Tools) -> Tools:
    """Return tools whose stand-ins have weights to count."""
    from types import SimpleNamespace

    from torch import nn

    half = nn.Linear(2**9, 2**8, bias=False)  # half a megabyte
    prior: Any = SimpleNamespace(unet=half, vae=nn.ModuleDict({"encoder": half}))
    prior.vae.encoder = half
    return replace(given, prior=prior, scorer=SimpleNamespace(model=half))  # type: ignore[arg-type]


def test_weights_are_counted_once(given: Tools) -> None:
    tools = _with_networks(given)
    generator = sum(x.nbytes for x in (*tools.generator.parameters(), *tools.generator.buffers())) / 2**20
    assert studies.weights_mb("clip-w", tools) == pytest.approx(generator + 0.5)


def test_measuring_real_pictures(tmp_path: Path, given: Tools) -> None:
    """Heads that are the real pictures themselves: the distance is that of the same pictures."""
    yard = yardstick(tmp_path, given)
    heads = [
        Seen(PICTURES.image(i).float().div(127.5).sub(1).expand(3, -1, -1, -1), torch.full((3, 1, 8, 8), 2.7), COST)
        for i in range(2)
    ]
    found = measure(heads, yard)
    images = torch.cat([view.image for view in stacked(heads)])
    assert found.fid == pytest.approx(yard.distance(images))
    features = yard.judge.scorer.image_features(torch.stack([head.images[0] for head in heads]))
    words = yard.words[:2]
    assert found.msc == pytest.approx(100 * float((features * words).sum(1).mean()), rel=1e-4)
    assert (found.seconds, found.busy, found.peak_mb) == (3.0, 2.0, 40.0)
    with pytest.raises(ValueError, match="1 heads, 2 prompts"):
        measure(heads[:1], yard)


COST = Cost(3.0, 2.0, 40.0)


def test_r_precision_among_more_captions() -> None:
    captions = torch.eye(4)
    images = torch.stack([captions[0], captions[2], captions[2]])  # the second one shows the caption of the third
    found = nearest(images, captions)
    assert (found.value, found.count, found.candidates) == (pytest.approx(2 / 3), 3, 4)
    tied = nearest(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert tied.value == 0.5


# The page.


def result(method: str, seed: int, fid: float, r: float = 0.5) -> dict[str, Any]:
    return {
        "method": method,
        "seed": seed,
        "fid": fid,
        "msc": 20.0 + r,
        "r_precision": {"value": r, "low": r / 2, "high": min(1, 1.5 * r), "count": 12, "candidates": 100},
        "sharpness": {"distance": 20.0},
        "consistency": {"color": 0.05, "depth": 0.01},
        "oracle": {"share": r},
        "busy": 1.0 if method == ONE_PASS else 60.0,
        "peak_mb": 10.0,
    }


def content(*results: dict[str, Any]) -> dict[str, Any]:
    return {
        "results": list(results),
        "weights_mb": dict.fromkeys(METHODS, 5.0),
        "prompts": 12,
        "dataset": "miniworld:test",
        "distance": "FID(mini-clip)",
        "floor": 0.01,
        "judge": {"clip": "mini/clip-b", "sha256": "c" * 64},
        "machine": {"device": "cpu", "name": "a processor", "threads": 1, "torch": "2.10"},
        "code": {"version": "0.1.0", "commit": None},
    }


def test_orderings_that_hold_and_that_do_not() -> None:
    values = measured(
        content(
            *(result(ONE_PASS, seed, fid=0.05 + seed / 1000, r=0.8) for seed in range(3)),
            *(result(LIFTING, seed, fid=0.02 + seed / 1000, r=0.3) for seed in range(3)),
        )
    )
    assert judged(values, Claim("Table 1", "r_precision", LIFTING)).word == "holds"
    assert judged(values, Claim("Table 1", "fid", LIFTING)).word == "does not hold"
    assert judged(values, Claim("Figure 7", "memory", LIFTING)).word == "within noise"
    assert judged(values, Claim("Figure 7", "busy", LIFTING)).word == "holds"
    assert judged(values, Claim("Figure 6", "fid", SDS)).word == "not run"


def test_the_document_has_the_tables_of_the_stored_results() -> None:
    root = Path(__file__).resolve().parents[2]
    stored = json.loads((root / "benchmarks/results/baselines.json").read_text(encoding="utf-8"))
    assert render(stored) in (root / "docs/baselines.md").read_text(encoding="utf-8")


def test_the_page_names_every_ordering() -> None:
    page = render(content(result(ONE_PASS, 0, 0.05), result(SDS, 0, 0.5)))
    orderings = page.partition("## Orderings")[2]
    assert sum(line.startswith("| Table 1 |") for line in orderings.splitlines()) == 3
    assert sum(line.startswith("| ") for line in orderings.partition("##")[0].splitlines()) == 2 + len(PAPER + OURS)
    assert "| Figure 6 | FID: one pass < sds | 0.450 | 1 | **same direction, one seed** |" in page
    assert "as many real pictures have 0.010" in page
