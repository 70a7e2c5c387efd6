"""Landmarks: points of a mesh that keep their meaning, each given by a face and shares of its corners."""

import torch
from torch import Tensor

from dreamportrait.systems.heads.model import HeadModel


def landmarks(model: HeadModel, vertices: Tensor) -> Tensor:  # [N, V, 3] -> [N, L, 3]
    """Return the landmarks of a model for given vertices."""
    if model.landmark_faces is None or model.landmark_shares is None:
        raise ValueError(f"head model {model.name!r} has no landmarks")
    corners = vertices[:, model.faces[model.landmark_faces]]  # [N, L, 3, 3]
    return (corners * model.landmark_shares[..., None]).sum(2)


def on_surface(vertices: Tensor, faces: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the face [L] and the shares [L, 3] of the point of a mesh [V, 3] nearest to each place [L, 3].

    Among the faces at the nearest vertex, so that meshes should be fine compared with the distances of interest.
    """
    nearest = torch.cdist(places, vertices).argmin(1)  # [L]
    found_faces, found_shares = [], []
    for place, vertex in zip(places, nearest, strict=True):
        around = torch.nonzero((faces == vertex).any(1)).flatten()
        shares = _projected(vertices[faces[around]], place)  # [K, 3]
        points = (shares[..., None] * vertices[faces[around]]).sum(1)
        best = int((points - place).square().sum(1).argmin())
        found_faces.append(around[best])
        found_shares.append(shares[best])
    return torch.stack(found_faces), torch.stack(found_shares)


def _projected(triangles: Tensor, place: Tensor) -> Tensor:  # [K, 3, 3], [3] -> [K, 3]
    """Return the shares of the projection of a place on triangles, moved inside where it lies outside."""
    a, b, c = triangles.unbind(1)
    u, v, w = b - a, c - a, place - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    scale = (uu * vv - uv * uv).clamp_min(1e-20)
    p, q = (vv * wu - uv * wv) / scale, (uu * wv - uv * wu) / scale
    shares = torch.stack([1 - p - q, p, q], 1).clamp_min(0)
    return shares / shares.sum(1, keepdim=True)
