"""Tests of drawing: letterboxes, normals, drafts."""

import numpy as np
import torch
from tiny_portraits import GENERATOR, plain

from dreamportrait.eg3d.planes import Planes
from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.rays import rays_from_label
from dreamportrait.viewer import picture

LABEL = orbit([20.0], 10.0, 2.7, (0.0, 0.0, 0.0))


def head() -> Planes:
    generator = plain()
    ws = generator.map(torch.randn(1, 8, generator=torch.Generator().manual_seed(0)), GENERATOR.around([0.0]))
    with torch.no_grad():
        return Planes(generator, generator.synthesize_planes(ws), ws)


def test_letterboxes_keep_the_picture_square_and_in_the_middle() -> None:
    pixels = np.full((10, 10, 3), 200, np.uint8)
    wide = picture.letterboxed(pixels, 2.0)
    assert wide.shape == (10, 20, 3)
    assert (wide[:, 5:15] == 200).all() and (wide[:, :5] == picture.BACKGROUND).all()
    high = picture.letterboxed(pixels, 0.5, size=20)
    assert high.shape == (40, 20, 3)
    assert (high[10:30] == 200).all() and (high[:10] == picture.BACKGROUND).all()
    assert np.array_equal(picture.letterboxed(pixels, 1.0), pixels)
    assert picture.letterboxed(pixels, 1e9).shape == (10, 50, 3)  # a window of no height


def test_normals_of_a_plane_that_faces_the_camera() -> None:
    _, directions = rays_from_label(LABEL, 8)
    forward = LABEL[:, :16].reshape(-1, 4, 4)[:, :3, 2]
    depth = 2.7 / (directions @ forward[..., None])  # [1, 64, 1]: all points are 2.7 before the camera
    found = picture.normals(depth.reshape(1, 1, 8, 8), LABEL)
    expected = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, 8, 8)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)  # differences of nearly equal float32 numbers


def test_normals_of_a_sphere_point_away_from_its_middle() -> None:
    label = orbit([0.0], 0.0, 2.7, (0.0, 0.0, 0.0))
    origins, directions = rays_from_label(label, 65)
    along = -(origins * directions).sum(-1)  # to the point next to the middle
    closest = (origins + along[..., None] * directions).norm(dim=-1)
    hit = closest < 0.25
    depth = torch.where(hit, along - (0.3**2 - closest.clamp(max=0.3) ** 2).sqrt(), 3.0).reshape(1, 1, 65, 65)
    found = picture.normals(depth, label)[0]
    assert found[2, 32, 32] > 0.999
    assert found[0, 32, 44] > 0.2 and found[0, 32, 20] < -0.2  # right of the middle they point to the right
    assert found[1, 20, 32] > 0.2 and found[1, 44, 32] < -0.2  # above it, upwards


def test_drafts_have_a_quarter_of_the_rays() -> None:
    portrait = head()
    draft, full = picture.draft(portrait, LABEL), picture.full(portrait, LABEL)
    assert draft.colors.shape == (1, 3, 8, 8) and full.colors.shape == (1, 3, 16, 16)
    assert draft.depth.shape == full.depth.shape == (1, 1, 8, 8)  # 8 is also the smallest draft
    with torch.no_grad():  # with gradients, convolutions round otherwise
        expected = portrait.view(LABEL)
    assert torch.equal(full.colors, expected.image) and torch.equal(draft.depth, expected.depth)


def test_kinds_of_pictures() -> None:
    drawing = picture.full(head(), LABEL)
    near, far = (float(edge) for edge in drawing.depth.aminmax())
    color, depth, normal = (picture.pixels_of(drawing, kind, LABEL, (near, far)) for kind in picture.KINDS)
    assert color.shape == (16, 16, 3) and depth.shape == normal.shape == (8, 8, 3)
    brightest = np.unravel_index(depth[..., 0].argmax(), depth.shape[:2])
    assert drawing.depth[0, 0][brightest] == near
    assert not np.array_equal(depth, normal)
