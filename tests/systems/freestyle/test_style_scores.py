"""Tests of the scores of styled heads, with hand-made judges."""

import math
from types import SimpleNamespace

import pytest
import torch
from tiny_freestyle import FRONTS
from tiny_styles import solid
from torch import Tensor

from dreamportrait.core.errors import WeightsError
from dreamportrait.metrics.style_oracle import StyleReader
from dreamportrait.miniworld.attributes import make_attributes
from dreamportrait.miniworld.styles import STYLES, style
from dreamportrait.systems.freestyle import evaluation as scores
from dreamportrait.systems.freestyle.fewshot import draw_heads
from dreamportrait.systems.freestyle.judges import known_style, load_judges

GOLD = style("gold statue")


class Reader:
    """Reads a bright picture as gold, a dark one as an elf; the face of a bright one wears glasses."""

    def read(self, images: Tensor) -> SimpleNamespace:
        bright = (images.mean((1, 2, 3)) > 0).tolist()
        faces = [make_attributes(eyewear="glasses" if is_bright else "none") for is_bright in bright]
        names = ["gold statue" if is_bright else "elf" for is_bright in bright]
        return SimpleNamespace(styles=names, faces=faces, yaw=torch.zeros(len(images)))


class Scorer:
    """Pictures are the angle of their mean colour; all texts are the vector (1, 0)."""

    def image_features(self, images: Tensor) -> Tensor:
        angle = images.mean((1, 2, 3))
        return torch.stack([angle.cos(), angle.sin()], 1)

    def text_features(self, prompts: list[str]) -> Tensor:
        return torch.tensor([[1.0, 0.0]] * len(prompts))


def flat(*values: float) -> Tensor:  # [N, 3, 4, 4]
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 4)


def test_text_against_picture():
    assert scores.style_accuracy(flat(0.5, 0.5, -0.5, 0.1), GOLD, Reader()) == 0.75
    value = scores.clip_score(flat(0.0, math.pi / 3), "a gold statue", Scorer())
    torch.testing.assert_close(value, torch.tensor(0.75))


def test_kept_attributes():
    """Of the attributes that gold keeps and both faces show, the eyewear of the second head is lost."""
    names = [name for name in GOLD.keeps if name != "eyewear"]
    found = scores.kept_attributes(flat(0.5, -0.5), flat(0.5, 0.5), GOLD, Reader())
    assert found == pytest.approx((2 * len(names) + 1) / (2 * len(GOLD.keeps)))
    assert scores.kept_attributes(flat(0.5), flat(0.5), GOLD, Reader()) == 1


def test_roughness_of_a_plane_and_a_spike():
    depth = torch.arange(25.0).reshape(1, 1, 5, 5).expand(2, -1, -1, -1).clone()  # a plane
    depth[1, 0, 2, 2] += 1  # a spike bends five pixels: 4 at itself, 1 at each neighbour
    found = scores.roughness(depth, torch.ones_like(depth))
    torch.testing.assert_close(found, torch.tensor([0.0, 8 / 9]))
    assert scores.roughness(depth, torch.zeros_like(depth)).tolist() == [0, 0]  # no head
    edge = torch.ones_like(depth)
    edge[:, :, 2, 2] = 0.4  # outside: neither the spike nor its neighbours count
    assert scores.roughness(depth, edge)[1] == 0


def test_mixing_steps():
    assert scores.largest_step(flat(0.0, 0.1, 0.2, 0.3)) == pytest.approx(1)
    assert scores.largest_step(flat(0.0, 0.0, 0.0, 0.3)) == pytest.approx(3)


def test_identities():
    features = torch.eye(2)
    candidates = torch.stack([torch.eye(2), torch.eye(2)])  # the first head is nearest to its own, the second not
    assert scores.identity_rate(features, candidates) == 0.5


def test_views_of_one_head_agree_better_than_with_another():
    generator = solid()
    heads = draw_heads(generator, [0, 1], 1.0)
    assert 0 < scores.between_views(heads, generator.config) < 2
    camera = scores.cameras_of(generator.config)
    with torch.no_grad():
        views = [heads[0].view(each[None]) for each in camera]
    images, depth = (torch.cat([getattr(view, name) for view in views]) for name in ("image", "depth"))
    own = scores.between_edits(images, depth, camera, generator.config)
    broken = images.clone()
    broken[1:] = -broken[1:]
    assert scores.between_edits(broken, depth, camera, generator.config) > own


def test_all_scores_of_heads():
    heads = draw_heads(solid(), [0, 1], 1.0)
    found = scores.measure(heads, FRONTS, "a gold statue", GOLD, Reader(), Scorer())
    assert set(found.as_dict()) == {"between_views", "roughness", "clip", "style", "kept"}
    assert all(math.isfinite(value) for value in found.as_dict().values())
    bare = scores.measure(heads, FRONTS, "a wizard", None, Reader(), None)
    assert set(bare.as_dict()) == {"between_views", "roughness"}


def test_the_style_oracle_is_a_reader():
    """Its answers are arbitrary before it is trained; what is read has the form that scores expect."""
    torch.manual_seed(0)
    reader = StyleReader().eval()
    heads = draw_heads(solid(), [0, 1], 1.0)
    found = scores.measure(heads, FRONTS, "a gold statue", GOLD, reader, None)
    assert found.style is not None and 0 <= found.style <= 1 and found.kept is not None
    assert reader.read(FRONTS).yaw.shape == (2,)


def test_distance_of_the_same_pictures_is_zero():
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert abs(scores.distance(features, features)) < 1e-6 < scores.distance(features, features + 1)


def test_styles_are_known_by_their_words():
    assert known_style("a gold statue") is GOLD and known_style("Golden  statue") is GOLD
    assert known_style("an elf") is style("elf") and known_style("a wizard") is None
    assert all(known_style(phrase) is each for each in STYLES for phrase in each.phrases)


def test_judges_by_name():
    assert load_judges("none", "none") == (None, None)
    assert load_judges("none", "mini/clip-b").scorer is not None
    with pytest.raises(WeightsError, match="must be mini/style-oracle or none"):
        load_judges("mini/oracle", "none")
