"""Films a head that follows a track, and measures what a GLB of it lacks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from numpy import ndarray as Array

from dreamportrait.export.encoding import check_video_target, encode
from dreamportrait.export.provenance import Claim
from dreamportrait.systems.heads.animation import Track
from dreamportrait.systems.heads.head import SIZE, Head
from dreamportrait.systems.heads.skinning import posed


def save_film(
    head: Head,
    path: str | Path,  # .mp4, .webm or .gif
    track: Track,
    *,
    yaw: float = 0.0,  # degrees
    fps: int = 30,
    size: int = SIZE,
    overwrite: bool = False,
    provenance: bool = True,
) -> int:
    """Film the head while it follows the track. Return the number of frames."""
    path = check_video_target(path, fps, overwrite)
    track.check(head.model)
    frames = track.frames(fps)
    encode(_frames(head, frames, yaw, size), path, fps, Claim(model=head.model.name) if provenance else None)
    return len(frames.times)


def _frames(head: Head, track: Track, yaw: float, size: int) -> Iterator[Array]:  # [size, size, 3] uint8
    for i in range(len(track.times)):
        yield at_frame(head, track, i).view(yaw, size=size).images[0]


def at_frame(head: Head, track: Track, frame: int) -> Head:
    """Return the head as a frame of the track poses it; what the track does not move stays."""
    psi = torch.zeros(head.model.num_expressions) if head.psi is None else head.psi.clone()
    theta = torch.zeros(head.model.num_joints, 3) if head.theta is None else head.theta.clone()
    for name, values in track.weights.items():
        psi[head.model.expression(name)] = float(values[frame])
    for name, turns in track.rotations.items():
        theta[head.model.joint(name)] = torch.as_tensor(turns[frame], dtype=torch.float32)
    return replace(head, psi=psi if len(psi) else None, theta=theta if len(theta) else None)


def left_out(head: Head, track: Track | None = None) -> float:
    """Return how far a vertex is at most from its place in a GLB, which lacks `posedirs`, in heights of the head."""
    model = head.model
    if model.posedirs is None:
        return 0.0
    moments = [head] if track is None else [at_frame(head, track, i) for i in range(len(track.times))]
    furthest = 0.0
    for each in moments:
        psi, theta = (None if x is None else x[None] for x in (each.psi, each.theta))
        whole, plain = (posed(model, each.beta[None], psi, theta, corrections=how) for how in (True, False))
        furthest = max(furthest, float((whole - plain).norm(dim=2).max()) * model.scale / model.height)
    return furthest
