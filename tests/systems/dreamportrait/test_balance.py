"""Tests of the balance of adversarial loss and guidance: lengths of gradients at pictures, and the weight they give."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from same_states import assert_same
from tiny_training import Recorder, batch, config, fit, guide, module
from torch import Tensor
from toy_run import arguments, write_sources

from dreamportrait.cli.training import train
from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.core.settings import Problem
from dreamportrait.systems.dreamportrait.balance import GAN, GUIDANCE, MEMORY, Balance, gradient_lengths
from dreamportrait.systems.dreamportrait.config import Loss
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.systems.dreamportrait.step_settings import step_settings
from dreamportrait.training.states import load_state

GUIDED = [{"name": "align", "images": 16, "guidance": True}]  # four steps


def made(factor: float = 1.0, stages: Any = GUIDED, **loss: Any) -> DreamPortraitModule:
    """Return a module whose guidance loss is multiplied by `factor`."""
    found = module(config(stages=stages, loss={"blur_start": 0, **loss}))
    found.guide = lambda *given: factor * guide(*given)
    return found


def test_length_of_a_known_gradient() -> None:
    image = torch.zeros(2, 3, 4, 4, requires_grad=True)
    towards = torch.zeros(3, 4, 4)
    towards[0, 0, :2] = torch.tensor([3.0, 4.0])
    losses = {"a": (image * towards).sum((1, 2, 3)).mean(), "b": image[0].sum() * 0 + image[1, 0, 0, 0] / 2}
    found = gradient_lengths(image, losses)
    assert float(found["a"]) == pytest.approx(5) and float(found["b"]) == pytest.approx(0.5)  # (0 + 1) / 2


def test_the_weight_follows_the_ratio() -> None:
    balance = Balance(Loss(gan_weight=4.0, guidance_ratio=0.5))
    balance.add({GAN: 3.0, GUIDANCE: 12.0})
    assert balance.guidance_weight == pytest.approx(0.5 * 4 * 3 / 12)
    assert balance.report()["guidance_ratio"] == pytest.approx(0.5)
    assert Balance(Loss(guidance_weight=7.0)).guidance_weight == 7


def test_means_of_many_measurements() -> None:
    balance = Balance(Loss())
    for value in (1.0, 2.0, math.nan, 6.0):
        balance.add({GAN: value})
    assert balance.lengths == {GAN: pytest.approx(3)}
    for _ in range(20 * MEMORY):
        balance.add({GAN: 10.0})
    assert balance.lengths[GAN] == pytest.approx(10, rel=1e-6)


@pytest.mark.parametrize("found", [{}, {GAN: 1.0, GUIDANCE: math.inf}, {GAN: 0.0, GUIDANCE: 1.0}])
def test_a_ratio_that_cannot_be_kept(found: dict[str, float]) -> None:
    balance = Balance(Loss(guidance_ratio=1.5))
    balance.add(found)
    with pytest.raises(NonFiniteLoss, match=r"guidance_ratio=1.5 cannot be kept.*give loss.guidance_weight"):
        _ = balance.guidance_weight


def test_when_it_is_measured() -> None:
    stages = [{"name": "adapt", "images": 8}, {"name": "align", "images": 24, "guidance": True}]
    c = config(stages=stages, loss={"balance_every_images": 12})
    assert [i for i in range(0, 32, 4) if step_settings(c, i).weighed] == [0, 8, 12, 24]
    assert [i for i in range(0, 32, 4) if step_settings(config(stages=stages), i).weighed] == [0, 8]


@pytest.mark.lengthy
def test_the_scale_of_a_guidance_loss_does_not_matter() -> None:
    """With a ratio, a guidance loss 1024 times as large gives the same training: a power of two rounds alike."""
    small, large = made(guidance_ratio=2.0), made(1024.0, guidance_ratio=2.0)
    fit(small), fit(large)
    assert_same(dict(small.state_dict()), dict(large.state_dict()))
    assert large.measured["guidance_gradient"] == 1024 * small.measured["guidance_gradient"] > 0
    assert large.measured["guidance_ratio"] == pytest.approx(2)


@pytest.mark.lengthy
def test_measuring_changes_nothing() -> None:
    plain, measured = made(), made(balance_every_images=4)
    fit(plain), fit(measured)
    assert_same(dict(plain.state_dict()), dict(measured.state_dict()))
    assert measured.balance.counts == {GAN: 4, GUIDANCE: 4} and plain.balance.counts == {GAN: 1, GUIDANCE: 1}


@pytest.mark.lengthy
def test_the_first_stage_measures_the_adversarial_loss_alone() -> None:
    found = made(stages=[{"name": "adapt", "images": 4}])
    fit(found)
    assert found.measured.keys() >= {"gan_gradient"} and "guidance_gradient" not in found.measured
    assert found.measured["gan_gradient"] > 0


@pytest.mark.lengthy
def test_parts_of_a_batch_measure_the_same_pictures() -> None:
    """Parts draw their own latents, so the lengths agree only roughly; the mean is over all parts."""
    lengths = []
    for parts in (1, 2):
        found = made(stages=[{"name": "align", "images": 4, "guidance": True, "accumulate": parts}])
        seen: list[Tensor] = []
        found.guide = lambda images, *rest, seen=seen: (seen.append(images.detach()), guide(images, *rest))[1]
        fit(found, data=[batch()])
        lengths.append(found.balance.lengths[GUIDANCE])
        assert [len(images) for images in seen] == [4 // parts] * (2 * parts)  # measured, then trained
        # Without gradients, modulation is fused, which rounds differently.
        torch.testing.assert_close(torch.cat(seen[:parts]), torch.cat(seen[parts:]), rtol=1e-4, atol=1e-4)
    assert lengths[1] == pytest.approx(lengths[0], rel=0.5)


@pytest.mark.lengthy
def test_a_continued_run_keeps_the_balance(tmp_path: Path) -> None:
    """A run that was stopped between two measurements continues with the weight that was in force, bit for bit."""
    sources = write_sources(tmp_path / "sources")
    changes = (
        *("guidance.kind=clip", "loss.guidance_ratio=1.5", "loss.balance_every_images=8", "samples.prompts=[]"),
        "trainer.save_every_images=4",
    )

    def run(runs: str, images: int) -> dict[str, Any]:
        command = arguments(sources, tmp_path / runs, *changes, f"stages.1.images={images}")
        result = CliRunner().invoke(train, command)
        assert result.exit_code == 0, result.output
        state = load_state(tmp_path / runs / "test" / "checkpoints" / f"images-{8 + images:09d}.ckpt")
        assert state is not None
        return state

    run("part", 4)
    continued, whole = run("part", 12), run("whole", 12)
    assert continued["balance"] == whole["balance"] and continued["balance"]["counts"] == {GAN: 2, GUIDANCE: 2}
    assert_same(continued["state_dict"], whole["state_dict"])


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"guidance_ratio": 1.0, "guidance_weight": 0.2}, "both set the strength of the guidance"),
        ({"guidance_ratio": 1.0, "gan_weight": 0.0}, "a ratio to an adversarial loss without weight"),
    ],
)
def test_contradicting_weights(loss: dict[str, float], said: str) -> None:
    (problem,) = config(loss=loss).contradictions()
    assert isinstance(problem, Problem) and said in str(problem)


def test_record_has_no_weight_in_the_losses() -> None:
    """The log's losses stay unweighted; the weights are among the measured values."""
    record, found = Recorder(), made(guidance_ratio=1.0)
    fit(found, record, data=[batch()])
    assert record.losses[0].keys() >= {"generator", "guidance"} and "guidance_weight" in found.measured
