"""Tests of eq. 1 and of the steps that remain."""

import pytest
import torch

from dreamportrait.mini.diffusion.folder import make_scheduler
from dreamportrait.systems.freestyle.start import add, all_steps, remaining_steps, start_step

ALPHAS = make_scheduler().alphas_cumprod
LATENTS, NOISE = torch.tensor([[[[1.0, -2.0]]]]), torch.tensor([[[[0.5, 4.0]]]])


def test_the_start_by_hand():
    assert [start_step(tau, 1000) for tau in (0, 0.5, 0.9, 1)] == [-1, 499, 899, 999]
    assert torch.equal(add(LATENTS, NOISE, ALPHAS, start_step(0, 1000)), LATENTS)
    # The published schedule: betas are the squares of 1000 even steps from sqrt(0.00085) to sqrt(0.012).
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    for tau, step in ((0.9, 899), (1, 999)):
        a = float((1 - betas)[: step + 1].prod())
        expected = a**0.5 * LATENTS + (1 - a) ** 0.5 * NOISE
        # The tolerance is that of a product of 1000 numbers in single precision.
        torch.testing.assert_close(add(LATENTS, NOISE, ALPHAS, start_step(tau, 1000)), expected, rtol=1e-4, atol=1e-5)
    assert float(ALPHAS[899].sqrt()) == pytest.approx(0.12, abs=0.005)  # what is left of the picture


def test_the_steps_of_the_paper():
    found = remaining_steps(1000, 20, 0.9, "drop")
    assert found == list(range(899, 0, -50)) and len(found) == 18 and found[-1] == 49
    squeezed = remaining_steps(1000, 20, 0.9, "squeeze")
    assert squeezed == list(range(899, 0, -45)) and len(squeezed) == 20 and squeezed[-1] == 44
    assert remaining_steps(1000, 20, 1, "drop") == remaining_steps(1000, 20, 1, "squeeze") == all_steps(1000, 20)


@pytest.mark.parametrize("steps", [1, 3, 7, 20, 50, 1000])
def test_all_steps_are_those_of_diffusers(steps):
    scheduler = make_scheduler()
    scheduler.set_timesteps(steps)
    assert all_steps(1000, steps) == scheduler.timesteps.tolist()


def test_dropped_steps_start_at_the_first_that_remains():
    assert remaining_steps(1000, 20, 0.87, "drop")[0] == 849
    assert remaining_steps(1000, 20, 0.87, "squeeze")[0] == 869


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ((1000, 20, 0.04, "drop"), "start=0.04 leaves no step of 20"),
        ((1000, 20, 0.01, "squeeze"), "start=0.01 leaves no step of 20"),
        ((1000, 20, 1.1, "drop"), "start=1.1: must be within 0 .. 1"),
        ((1000, 20, float("nan"), "drop"), "start"),
        ((1000, 0, 0.9, "drop"), "steps"),
        ((1000, 1001, 0.9, "drop"), "steps=1001: must be from 1 to 1000"),
        ((1000, 20, 0.9, "half"), "steps_after_start='half': must be one of drop, squeeze"),
    ],
)
def test_impossible_starts_are_refused(given, problem):
    with pytest.raises(ValueError, match=problem):
        remaining_steps(*given)
