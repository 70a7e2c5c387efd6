"""Tests of the benchmarks: numbers computed from times, and that the timed step is the real one. Speed is not tested.

EG3D_OFFICIAL=/path/to/eg3d (a checkout of NVlabs/eg3d) enables the comparison of the official losses with ours.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import GENERATOR
from tiny_training import module as tiny_module
from torch import Tensor

from benchmarks import agreement, official, parts, steps, training
from benchmarks.measure import write
from benchmarks.options import checkout, count, make_parser, parse
from benchmarks.parts import REST, Clock, watched
from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule

CONFIG = steps.make_config("cpu", 4, "float32")
OURS = {steps.PLAIN, steps.TEXT}
PARTS = {
    *("mapping", "backbone", "rendering", "super-resolution", "discriminator", "R1", "density regularisation"),
    *("backward, generator's loss", "backward, discriminator's loss", "optimisers", "averages", REST),
}


@pytest.fixture
def module() -> DreamPortraitModule:
    return tiny_module(CONFIG, guided=False)


# The measured step.


def measured(module: DreamPortraitModule) -> steps.Measured:
    batch = steps.make_batch(module.generator, 4)
    found: list[steps.Measured] = []
    steps.inside_trainer(module, lambda: found.append(steps.measure(module, batch, None, "cpu", 2)))
    return found[0]


@pytest.mark.lengthy
def test_every_kind_of_step_is_measured(module: DreamPortraitModule) -> None:
    before = {name: value.clone() for name, value in module.named_parameters()}
    found = measured(module)
    assert found.times.keys() == found.memory.keys() == found.parts.keys() == OURS
    for times in found.times.values():
        assert times.keys() == steps.KINDS.keys() and all(len(each) == 2 and min(each) > 0 for each in times.values())
    text = [name for name in before if name.startswith("generator.adapters")]
    moved = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert {"generator.generator.decoder.net.0.weight", "critic.discriminator.b4.out.weight"} <= moved
    assert moved & set(text)  # in steps with text
    rows = steps.speed_rows(found, CONFIG)
    assert [row["step"] for row in rows] == [steps.PLAIN, steps.TEXT] and "ratio" not in rows[0]


def test_kinds_of_steps_are_what_they_are_called(module: DreamPortraitModule) -> None:
    found: dict[int, set[str]] = {}
    batch = steps.make_batch(module.generator, 4)

    def work() -> None:
        for kind in steps.KINDS:
            steps.take_step(module, batch, kind)
            found[kind] = {"r1", "density"} & module.losses.keys()

    steps.inside_trainer(module, work)
    assert found == {0: {"r1", "density"}, 4: {"density"}, 1: set()}
    assert steps.KINDS == {0: "R1 and density", 4: "density", 1: "neither"}


def test_plain_steps_do_not_touch_what_listens_to_text(module: DreamPortraitModule) -> None:
    batch = steps.make_batch(module.generator, 4)
    plain = steps.without_text(batch)
    before = {name: value.clone() for name, value in module.generator.listeners().named_parameters()}
    steps.inside_trainer(module, lambda: steps.take_step(module, plain, 1))
    assert all(torch.equal(value, before[name]) for name, value in module.generator.listeners().named_parameters())
    assert batch.fake.text is not None and plain.fake.text is None


# Times of the parts of a step.


def test_time_inside_of_a_part_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # start, outer begins, inner begins, inner ends, outer ends, outer begins, outer ends
    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock("cpu")
    with clock.part("outer"), clock.part("inner"):  # from 1 to 10 and from 3 to 6
        pass
    with pytest.raises(KeyError), clock.part("outer"):  # from 15 to 21
        raise KeyError
    assert clock.seconds == {REST: 1 + 5, "outer": 2 + 4 + 6, "inner": 3}


@pytest.mark.lengthy
def test_all_parts_are_found_and_their_shares_are_one(module: DreamPortraitModule) -> None:
    found = measured(module)
    for by_kind in found.parts.values():
        assert by_kind[0].keys() == PARTS
        assert by_kind[4].keys() == PARTS - {"R1"}
        assert by_kind[1].keys() == PARTS - {"R1", "density regularisation"}
        rows = steps.part_rows(by_kind, CONFIG)
        assert {row["part"] for row in rows} == PARTS
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)


@pytest.mark.lengthy
def test_a_watched_step_is_the_same_step_and_is_left_as_it_was() -> None:
    backward, density = Tensor.backward, parts.training.density_regularization
    modules = [tiny_module(CONFIG, guided=False) for _ in range(2)]
    batch = steps.make_batch(modules[0].generator, 4)

    def watch() -> None:
        with watched(modules[0], Clock("cpu")):
            steps.take_step(modules[0], batch, 0)

    for module, first in zip(modules, (watch, lambda: steps.take_step(modules[1], batch, 0)), strict=True):
        steps.inside_trainer(module, first)
        steps.inside_trainer(module, lambda module=module: steps.take_step(module, batch, 1))
        assert not {"portray", "note", "update", "judge_fake"} & vars(module).keys()
    assert modules[0].losses == modules[1].losses and len(modules[0].losses) == 2
    assert Tensor.backward is backward and parts.training.density_regularization is density


# Numbers computed from times.


def test_shares_of_the_published_intervals() -> None:
    assert steps.shares(CONFIG) == {0: 1 / 16, 4: 3 / 16, 1: 12 / 16}


def test_speed_by_hand() -> None:
    theirs = {0: [32.0, 32.0], 4: [16.0, 16.0], 1: [8.0, 8.0]}  # 2 + 3 + 6 = 11 s for the mean step
    ours = {0: [16.0, 16.0], 4: [16 / 3, 16 / 3], 1: [4.0, 4.0]}  # 1 + 1 + 3 = 5 s
    memory = dict.fromkeys((steps.OFFICIAL, steps.PLAIN), 7.0)
    found = steps.Measured({steps.OFFICIAL: theirs, steps.PLAIN: ours}, memory)
    first, second = steps.speed_rows(found, CONFIG)
    assert (first["s_per_step"], first["images_per_s"], first["ratio"]) == pytest.approx((11, 4 / 11, 1))
    assert (second["s_per_step"], second["images_per_s"], second["ratio"]) == pytest.approx((5, 4 / 5, 11 / 5))
    assert second["s, R1 and density"] == 16 and second["spread"] == 0 and second["MB"] == 7


def test_the_ratio_is_of_pairs() -> None:
    """The ratio is taken within each round, so it is the same in rounds in which both are slow or both fast."""
    theirs = {kind: [2.0, 20.0, 4.0] for kind in steps.KINDS}
    ours = {kind: [1.0, 10.0, 2.0] for kind in steps.KINDS}
    assert steps._ratio(theirs, ours, steps.shares(CONFIG)) == pytest.approx(2)


def test_parts_by_hand() -> None:
    by_kind = {0: {"a": 16.0, "b": 1.6}, 4: {"a": 16.0}, 1: {"a": 0.0}}
    assert steps.part_rows(by_kind, CONFIG) == [
        {"part": "a", "ms": pytest.approx(4000), "share": pytest.approx(4 / 4.1)},
        {"part": "b", "ms": pytest.approx(100), "share": pytest.approx(0.1 / 4.1)},
    ]


# Arguments and results.


def test_a_wrong_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"no eg3d/training/triplane.py there; give a checkout of"):
        checkout(str(tmp_path))


def test_what_the_official_code_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eg3d" / "training").mkdir(parents=True)
    (tmp_path / "eg3d" / "training" / "triplane.py").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "scipy" else name)
    with pytest.raises(argparse.ArgumentTypeError, match="the official code also imports scipy; pip install scipy"):
        checkout(str(tmp_path))


def test_a_generator_unknown_to_the_official_code_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the official code knows planes of 256 x 256 x 32 .* this generator has"):
        official._super_resolution(GENERATOR)
    assert official._super_resolution(GeneratorConfig()) == "8XDC"


@pytest.mark.parametrize("bad", [["--repeats", "0"], ["--repeats", "many"], ["--device", "tpu"]])
def test_bad_arguments(bad: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *bad])
    with pytest.raises(SystemExit) as stopped:
        parse(make_parser("", repeats=3))
    assert stopped.value.code == 2


def test_at_least_one() -> None:
    assert count("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="0: must be at least 1"):
        count("0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "cuda"])
    with pytest.raises(SystemExit):
        parse(make_parser("", repeats=3))
    assert "--device cuda: PyTorch sees no GPU here; choose cpu" in capsys.readouterr().err


def test_the_miniature_world_is_not_compared(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(training, "checkout", lambda text: Path(text))
    monkeypatch.setattr(sys, "argv", ["training", "--size", "mini", "--official", str(tmp_path)])
    with pytest.raises(SystemExit):
        training.main()
    assert "has no such planes as the miniature world's; choose small or full" in capsys.readouterr().err


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "bench.json", {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1} and list(path.parent.iterdir()) == [path]
    with pytest.raises(TypeError):
        write(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


# Comparison with the official code.


def test_draws_that_both_can_share() -> None:
    rand, randn = torch.rand, torch.randn
    with agreement.same_draws():
        assert torch.rand(2, 3).eq(0.5).all() and torch.rand([]).item() == 0.5 and torch.rand((2, 3)).shape == (2, 3)
        assert torch.equal(torch.randn(4, 5), torch.randn([4, 5])) and torch.randn(4, 5).std() > 0.3
        assert torch.equal(torch.randn_like(torch.zeros(4, 5)), torch.randn(4, 5))
    assert torch.rand is rand and torch.randn is randn


def test_differences_are_relative() -> None:
    assert agreement.relative_difference({"r1": 4.0}, {"r1": 5.0, "density": 1.0}) == {"r1": 0.25}


@pytest.mark.slow
@pytest.mark.skipif("EG3D_OFFICIAL" not in os.environ, reason="EG3D_OFFICIAL names no official checkout")
@pytest.mark.filterwarnings("ignore")  # warnings of the official code
def test_the_official_losses_are_ours() -> None:
    official.find(checkout(os.environ["EG3D_OFFICIAL"]))
    config = steps.make_config("cpu", 2, "float32")
    portrait, critic = steps.make_networks("small", config)
    loop = official.Training(portrait.generator, critic.discriminator, config, "cpu")
    module = DreamPortraitModule(portrait, critic, config)
    batch = steps.without_text(steps.make_batch(portrait, 2))
    found: dict[str, float] = {}

    def work() -> None:
        expected = agreement.official_losses(loop, batch)
        found.update(agreement.relative_difference(expected, agreement.our_losses(module, batch)))

    steps.inside_trainer(module, work)
    assert found.keys() == {"generator", "discriminator", "r1", "density"}
    assert max(found.values()) < 1e-4, found  # the density loss is a difference of nearly equal numbers
