"""Gaussian splats of heads: a cloud of coloured, half-transparent ellipsoids that browsers draw in real time.

splats = make_splats(portrait.head)
splats.save("head.ply")     # or head.spz, a quarter of the size

Points lie where rays of seven views stop; see splat_points.py. Each becomes a flat disc in the colour of its view. For
the models that come with the package, a small network then corrects the discs; see splat_head.py.
"""

import torch

from dreamportrait.eg3d.planes import Planes
from dreamportrait.export.mesh import METRES
from dreamportrait.export.progress import Report, silent
from dreamportrait.export.splat_files import Splats
from dreamportrait.export.splat_head import Gaussians, SplatHead, check_made_for, find_splat_head, gaussians
from dreamportrait.export.splat_points import surface_points
from eg3d_ops._checks import check_int

COUNT = 65_536
COUNTS = (1_000, 2_000_000)


@torch.no_grad()
def make_splats(
    head: Planes,  # of one head
    count: int = COUNT,  # splats; a few less where views see little
    *,
    background: bool = True,  # False: only the head, where the generator draws a background
    # A network that corrects the splats. True = the shipped one, if it fits this generator; False = none.
    corrections: SplatHead | bool = True,
    report: Report = silent,
) -> Splats:
    """Make splats of a head. They show what the seven views of `splat_cameras` see, so there is no back of the head.

    Raises ValueError if the head is empty.
    """
    if len(head) != 1:
        raise ValueError(f"head holds {len(head)} heads; choose one of them, for example head[0]")
    if not COUNTS[0] <= check_int("count", count) <= COUNTS[1]:
        raise ValueError(f"count={count}: must lie between {COUNTS[0]} and {COUNTS[1]} splats")
    network = find_splat_head(head.generator) if corrections is True else corrections or None
    if network is not None:
        check_made_for(network, head.generator)
    # Without the network, splats are opaque, so none may lie in front of its surface.
    points = surface_points(head, count, background, spread=network is not None, report=report)
    return to_splats(gaussians(points, network))


def to_splats(made: Gaussians) -> Splats:
    """Convert to metres. Colours are limited to what a screen shows."""
    parts = made._replace(
        positions=made.positions * METRES, scales=made.scales * METRES, colors=made.colors.clamp(0, 1)
    )
    return Splats(*(part.detach().float().cpu().numpy() for part in parts))
