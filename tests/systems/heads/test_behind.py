"""Tests of the colours that spread to the back of a head."""

import torch
from small_heads import wall

from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.behind import outside, spread, well_shown
from dreamportrait.systems.heads.skinning import to_world
from dreamportrait.systems.heads.uv import Gutter, atlas, gutter

NO_GUTTER = Gutter(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))


def test_between_two_colours_the_change_is_a_ramp() -> None:
    """Heat between walls of 0 and 1: it grows steadily across, and evenly."""
    change, known = torch.zeros(1, 3, 7), torch.zeros(3, 7, dtype=torch.bool)
    change[..., 6] = 1
    known[:, [0, 6]] = True
    found = spread(change, known, torch.ones_like(known), NO_GUTTER)
    torch.testing.assert_close(found[0, 1], torch.arange(7) / 6, atol=0.02, rtol=0)
    assert found[..., [0, 6]].equal(change[..., [0, 6]])


def test_parts_without_a_known_texel_stay_as_they_were_made() -> None:
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[:, 2] = False  # two parts
    known = torch.zeros_like(mask)
    known[:, 0] = True
    change = torch.where(known, 0.5, 0.0)[None]
    found = spread(change, known, mask, NO_GUTTER)
    assert found[:, :, 1].gt(0.45).all()
    assert found[:, :, 3:].eq(0).all()


def test_texels_of_a_wall_are_shown_from_the_front_and_not_from_the_side() -> None:
    model = wall()
    assert model.uv is not None and model.uv_faces is not None
    places = atlas(model.uv, model.uv_faces, 4)
    assert well_shown(model, model.v_template, places, [0.0]).all()
    assert not well_shown(model, model.v_template, places, [85.0]).any()


def test_the_back_of_the_head_takes_the_colour_of_its_sides() -> None:
    model = from_pretrained("mini/head")
    assert model.uv is not None and model.uv_faces is not None and model.parts is not None
    places = atlas(model.uv, model.uv_faces, 64)
    border = gutter(places, *(x.numpy() for x in (model.uv, model.uv_faces, model.v_template, model.faces)))
    shown = well_shown(model, to_world(model, model.v_template[None])[0], places, [-28.0, 0.0, 28.0])
    outer = outside(model, places)
    change = shown.float()[None] * 0.5
    found = spread(change, shown, outer, border)
    skin = model.parts[places.faces] == model.part_names.index("skin")
    assert found[0].view(-1)[places.texels[skin]].min() > 0.3  # also at the nape, the farthest place
    inner = places.mask & ~outer
    assert inner.any()
    assert found[0][inner & ~shown].eq(0).all()
