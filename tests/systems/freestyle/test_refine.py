"""Tests of refinement: planes follow the front, heads do not depend on each other, nothing else changes."""

import pytest
import torch
from click.testing import CliRunner
from tiny_freestyle import FRONTS, styled

from dreamportrait.cli.style import style
from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.eg3d.planes import Planes
from dreamportrait.systems.freestyle.refine import Refinement, refine

HOW = Refinement(steps=4, lr=0.1)


def error(heads: Planes, fronts: torch.Tensor) -> float:
    camera = heads.generator.config.around([0.0]).expand(len(heads), -1)
    with torch.no_grad():
        return float((heads.view(camera).image - fronts).abs().mean())


@torch.no_grad()  # as the pipeline calls it
def test_heads_follow_their_fronts_and_nothing_else_changes():
    made = styled()
    heads = made.heads(FRONTS)
    planes, weights = heads.planes.clone(), [p.clone() for p in made.generator.parameters()]
    found = refine(heads, FRONTS, made.i2t.deviation, HOW)
    assert error(found, FRONTS) < 0.98 * error(heads, FRONTS)  # the fronts are noise, of which little can be fitted
    assert not found.planes.requires_grad and torch.equal(found.ws, heads.ws) and torch.equal(heads.planes, planes)
    assert all(torch.equal(*pair) for pair in zip(made.generator.parameters(), weights, strict=True))
    assert all(p.grad is None for p in made.generator.parameters())
    assert torch.equal(found.planes, refine(heads, FRONTS, made.i2t.deviation, HOW).planes)


def test_no_step_changes_nothing():
    made = styled()
    heads = made.heads(FRONTS)
    assert refine(heads, FRONTS, made.i2t.deviation, Refinement(steps=0)) is heads


@torch.no_grad()
def test_a_step_moves_every_number_by_the_rate_in_units_of_the_deviation():
    made = styled()
    heads, deviation = made.heads(FRONTS[:1]), torch.full_like(made.i2t.deviation, 3.0)
    found = refine(heads, FRONTS[:1], deviation, Refinement(steps=1, lr=0.1, stride=1))
    moved = (found.planes - heads.planes).abs()
    moved = moved[moved > 0.01]  # numbers that no ray met stay; Adam's epsilon shortens steps of tiny gradients
    assert len(moved) > 100 and float(moved.max()) <= 0.3001 and float(moved.median()) > 0.29


@torch.no_grad()
def test_heads_do_not_depend_on_each_other():
    made = styled()
    heads = made.heads(FRONTS)
    both = refine(heads, FRONTS, made.i2t.deviation, HOW).planes
    for k in range(len(FRONTS)):
        one = Planes(made.generator, heads.planes[k : k + 1], heads.ws[k : k + 1])
        alone = refine(one, FRONTS[k : k + 1], made.i2t.deviation, HOW).planes[0]
        # Several heads at once round differently, and Adam turns a tiny gradient of another sign into a full step.
        assert float(((alone - both[k]).abs() < 1e-3).float().mean()) > 0.98


@torch.no_grad()
def test_what_is_not_finite_is_an_error():
    made = styled()
    with pytest.raises(NonFiniteLoss, match="error of a refined head is nan at step 1"):
        refine(made.heads(FRONTS), FRONTS * float("nan"), made.i2t.deviation)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"steps": 1001}, "steps=1001: at most 1000"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"lr": 0.0}, "lr=0.0: must be positive"),
    ],
)
def test_bad_settings_are_named(given, said):
    with pytest.raises(ValueError, match=said):
        Refinement(**given)


def test_the_command_says_how_many_steps():
    text = " ".join(CliRunner().invoke(style, ["apply", "--help"]).output.split())
    assert f"[default: {Refinement().steps}]" in text
    refused = CliRunner().invoke(style, ["apply", "photo.png", "--style", "gold", "--refine", "3"])
    assert refused.exit_code == 2 and "--refine is of an instruction" in refused.output
