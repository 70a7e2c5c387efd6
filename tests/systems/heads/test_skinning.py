"""Tests of the equations of head models, on an arm with one joint that is worked out by hand."""

import math

import pytest
import torch
from small_heads import arm
from torch import Tensor

from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import joints, posed, rodrigues, shaped

QUARTER = math.pi / 2


def turned(model: HeadModel, root: list[float], elbow: list[float], **rest: Tensor) -> Tensor:
    return posed(model, torch.zeros(1, 2), theta=torch.tensor([[root, elbow]]), **rest)[0]


def test_a_bent_elbow_moves_what_follows_it() -> None:
    model = arm()
    found = turned(model, [0, 0, 0], [0, 0, QUARTER])  # around z, from x to y
    expected = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_root_turns_everything() -> None:
    found = turned(arm(), [0, 0, QUARTER], [0, 0, QUARTER])
    expected = torch.tensor([[0.0, 0, 0], [0, 0.5, 0], [-0.5, 0, 0], [0, 1, 0], [-1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_joints_follow_the_shape_and_not_the_expression() -> None:
    model, beta = arm(), torch.tensor([[3.0, 0.0]])
    torch.testing.assert_close(joints(model, beta)[0], torch.tensor([[3.0, 0, 0], [4.0, 0, 0]]))
    bent = torch.tensor([[[0.0, 0, 0], [0, 0, QUARTER]]])
    found = posed(model, beta, torch.tensor([[1.0]]), bent)[0]
    # The tip (2, 0, 0) moves to (3, 1, 1) by the expression and by 3 along x; it turns around (4, 0, 0).
    torch.testing.assert_close(found[4], torch.tensor([3.0, 2.0, 1.0]), atol=1e-6, rtol=0)


def test_joints_of_a_template_with_directions() -> None:
    places, dirs = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.ones(2, 2, 3)
    model = arm(joint_regressor=None, joint_template=places, joint_dirs=dirs)
    torch.testing.assert_close(joints(model, torch.tensor([[2.0, -1.0]]))[0], places + 1)


def test_corrections_follow_the_rotation_row_by_row() -> None:
    """R_12 - I_12 of a quarter turn around z is -1, and stands second of the nine."""
    dirs = torch.zeros(6, 3, 9)
    dirs[0, 2, 1] = 0.25
    model = arm(posedirs=dirs)
    assert turned(model, [0, 0, 0], [0, 0, QUARTER])[0, 2].item() == pytest.approx(-0.25)
    plain = posed(model, torch.zeros(1, 2), theta=torch.tensor([[[0.0] * 3, [0, 0, QUARTER]]]), corrections=False)
    assert plain[0, 0, 2] == 0


def test_at_rest_nothing_moves() -> None:
    model, beta = arm(), torch.tensor([[0.3, -0.7]])
    found = posed(model, beta, torch.zeros(1, 1), torch.zeros(1, 2, 3))
    torch.testing.assert_close(found, shaped(model, beta), atol=1e-6, rtol=0)


def test_models_without_a_rig_have_no_pose() -> None:
    none = {"weights": None, "joint_regressor": None, "posedirs": None, "parents": (), "joint_names": ()}
    model = arm(**none)
    assert posed(model, torch.zeros(1, 2)).equal(model.v_template[None])
    with pytest.raises(ValueError, match="has no joints"):
        posed(model, torch.zeros(1, 2), theta=torch.zeros(1, 2, 3))


def test_rotations() -> None:
    turns = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    turns[0], turns[1] = 0, turns[1] * 1e-6
    expected = torch.linalg.matrix_exp(
        torch.stack([torch.linalg.cross(turns, axis.expand_as(turns)) for axis in torch.eye(3).double()], -1)
    )
    torch.testing.assert_close(rodrigues(turns), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-3, 1.1])
def test_gradients(angle: float) -> None:
    """Analytic derivatives agree with differences, also where nothing turns."""
    model = arm()
    double = {name: getattr(model, name).double() for name in ("v_template", "shapedirs", "exprdirs", "posedirs")}
    double |= {name: getattr(model, name).double() for name in ("weights", "joint_regressor")}
    model = arm(**double)
    theta = torch.tensor([[[0.3, -0.2, 1.0], [0.5, 1.0, -0.4]]], dtype=torch.float64) * angle
    beta, psi = torch.tensor([[0.4, -0.3]]).double(), torch.tensor([[0.7]]).double()
    inputs = tuple(x.requires_grad_() for x in (beta, psi, theta))
    assert torch.autograd.gradcheck(lambda b, p, t: posed(model, b, p, t), inputs)
