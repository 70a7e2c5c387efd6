"""The equations of linear head models: blend shapes, joints, and linear blend skinning.

here        meaning
beta        [N, m] weights of the identity          psi    [N, e] weights of the expressions
theta       [N, K, 3] rotation of each joint: axis times angle in radians, relative to its parent
T           blended vertices before the joints turn
G_k         [N, K, 3, 4] where joint k moves: G_root = [R | J], G_k = G_parent [R_k | J_k - J_parent]

T = v_template + sum beta_i S_i + sum psi_k E_k + sum_n (R_n - I_n) P_n
J = joint_regressor (v_template + sum beta_i S_i)           the expression does not move joints
v = sum_k w_k G_k [I | -J_k] [T; 1]
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamportrait.systems.heads.model import HeadModel

_SMALL = 1e-4  # squared angle below which series replace quotients; their next terms are below 1e-13


def rodrigues(turns: Tensor) -> Tensor:  # [..., 3] -> [..., 3, 3]
    """Return rotation matrices R = I + a K + b K^2 with a = sin t / t and b = (1 - cos t) / t^2, smooth at t = 0."""
    q = turns.square().sum(-1)[..., None, None]  # t^2
    small = q < _SMALL
    t = torch.where(small, torch.ones_like(q), q).sqrt()
    a = torch.where(small, 1 - q / 6 + q * q / 120, t.sin() / t)
    b = torch.where(small, 0.5 - q / 24 + q * q / 720, (1 - t.cos()) / (t * t))
    x, y, z = turns.unbind(-1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=turns.dtype, device=turns.device) + a * cross + b * (cross @ cross)


def shaped(model: HeadModel, beta: Tensor) -> Tensor:  # [N, m] -> [N, V, 3]
    """Return the vertices of identities at rest, without expression."""
    return model.v_template + _combined(model.shapedirs, beta)


def _combined(dirs: Tensor, weights: Tensor) -> Tensor:  # [V, 3, m], [N, m] -> [N, V, 3]
    return (weights @ dirs.flatten(0, 1).T).unflatten(1, (-1, 3))


def joints(model: HeadModel, beta: Tensor) -> Tensor:  # [N, m] -> [N, K, 3]
    """Return the joints of identities."""
    if model.joint_regressor is not None:
        return torch.einsum("kv,nvc->nkc", model.joint_regressor, shaped(model, beta))
    assert model.joint_template is not None and model.joint_dirs is not None
    return model.joint_template + torch.einsum("nm,mkc->nkc", beta, model.joint_dirs)


def posed(
    model: HeadModel,
    beta: Tensor,  # [N, m]
    psi: Tensor | None = None,  # [N, e]
    theta: Tensor | None = None,  # [N, K, 3]
    corrections: bool = True,  # False: leave posedirs out, as glTF must
) -> Tensor:  # [N, V, 3], in the model's units
    """Return the vertices of heads with an expression and with turned joints."""
    vertices = shaped(model, beta)
    if psi is not None:
        if model.exprdirs is None:
            raise ValueError(f"head model {model.name!r} has no expressions")
        vertices = vertices + _combined(model.exprdirs, psi)
    if theta is None:
        return vertices
    if model.weights is None:
        raise ValueError(f"head model {model.name!r} has no joints, so that nothing can turn")
    rotations = rodrigues(theta)  # [N, K, 3, 3]
    if corrections and model.posedirs is not None:
        away = (rotations[:, 1:] - torch.eye(3, dtype=theta.dtype, device=theta.device)).flatten(1)  # [N, 9 (K - 1)]
        vertices = vertices + _combined(model.posedirs, away)
    return skinned(vertices, joint_motions(model, joints(model, beta), rotations), model.weights)


def joint_motions(model: HeadModel, places: Tensor, rotations: Tensor) -> Tensor:  # [N, K, 3], [N, K, 3, 3]
    """Return G_k [I | -J_k] of every joint, [N, K, 3, 4]."""
    turned, moved = [rotations[:, 0]], [places[:, 0]]  # of G_k: rotation and translation
    for k, parent in enumerate(model.parents[1:], 1):
        turned.append(turned[parent] @ rotations[:, k])
        step = places[:, k] - places[:, parent]
        moved.append(moved[parent] + (turned[parent] @ step[..., None])[..., 0])
    rotation, place = torch.stack(turned, 1), torch.stack(moved, 1)
    back = (rotation @ places[..., None])[..., 0]
    return torch.cat([rotation, (place - back)[..., None]], -1)


def skinned(vertices: Tensor, motions: Tensor, weights: Tensor) -> Tensor:  # [N, V, 3], [N, K, 3, 4], [V, K]
    """Return vertices moved by the weighted mean of the joints' motions."""
    mixed = torch.einsum("vk,nkij->nvij", weights, motions)  # [N, V, 3, 4]
    return (mixed @ F.pad(vertices, (0, 1), value=1.0)[..., None])[..., 0]


def to_world(model: HeadModel, vertices: Tensor) -> Tensor:
    """Return vertices in the units of the cameras."""
    return vertices * model.scale + vertices.new_tensor(model.offset)
