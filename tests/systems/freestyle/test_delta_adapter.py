"""Tests of style adapters and of mixing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_freestyle import FRONTS, cameras, few_shot, i2t, styled
from torch import nn

from dreamportrait.core.errors import WeightsError
from dreamportrait.systems.freestyle.adapted import LowRankNetwork
from dreamportrait.systems.freestyle.adapter import DELTAS, Score, StyleAdapter
from dreamportrait.systems.freestyle.fewshot import FewShotSettings
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.mixing import mix, shares
from dreamportrait.systems.freestyle.names import ABOUT
from dreamportrait.systems.freestyle.network import OFFSET, ImageToTriplane
from dreamportrait.systems.freestyle.smooth import enlarged
from dreamportrait.systems.freestyle.tuning import TuneSettings


def adapter(seed: int = 0, train: str = "lora", identities: int = 2, stride: int = 0) -> StyleAdapter:
    """Return an adapter of random changes."""
    base, numbers = i2t(), torch.Generator().manual_seed(seed)
    tuned: nn.Module = LowRankNetwork(base, 2, seed, stride) if train == "lora" else i2t()
    for parameter in tuned.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=numbers))
    settings = TuneSettings(train=train, rank=2, offset_stride=stride)  # type: ignore[arg-type]
    return StyleAdapter.of(
        tuned,
        base,
        few_shot(identities),
        FewShotSettings(identities=identities),
        settings,
        base_name="tiny",
        licence="Apache-2.0",
        scores=(Score("style", 0.9),),
    )


def planes(network: ImageToTriplane) -> torch.Tensor:
    with torch.no_grad():
        return network(FRONTS).planes


def test_the_strength_scales_the_changes():
    base, style = i2t(), adapter()
    assert torch.equal(planes(style.applied(base, 0)), planes(base))
    full, weights = style.applied(base), dict(base.named_parameters())
    name = "layers.16.conv.weight"
    delta = style.changes()[name].reshape(weights[name].shape)
    assert torch.equal(dict(full.named_parameters())[name], weights[name] + delta)
    half = dict(style.applied(base, 0.5).named_parameters())[name]
    torch.testing.assert_close(half, weights[name] + 0.5 * delta)
    assert not torch.allclose(planes(full), planes(base), atol=0.1)
    assert torch.equal(planes(base), planes(i2t()))  # the base stays


def test_an_offset_is_added_to_the_planes_of_every_picture():
    base, style = i2t(), adapter(stride=2)
    offset = style.tensors[OFFSET]
    assert offset.shape == (3, base.config.plane_channels, *[base.config.plane_resolution // 2] * 2)
    bare = replace(style, tensors={name: x for name, x in style.tensors.items() if name != OFFSET})
    for strength in (1.0, 0.5):
        difference = planes(style.applied(base, strength)) - planes(bare.applied(base, strength))
        wanted = strength * base.deviation * enlarged(offset, base.config.plane_resolution)
        # planes are differences times s, which is up to 30: their rounding is larger than that of offsets
        torch.testing.assert_close(difference, wanted.expand_as(difference), rtol=1e-4, atol=1e-3)
    assert torch.equal(planes(style.applied(base, 0)), planes(base))


def test_offsets_of_mixed_styles_are_added(tmp_path):
    base, (first, second) = styled(), (adapter(1, stride=2), adapter(2, stride=3))
    bare = [replace(each, tensors={OFFSET: each.tensors[OFFSET]}) for each in (first, second)]
    found = mix(base, bare, [1, 3], [FRONTS, FRONTS]).planes - base.heads(FRONTS).planes
    sizes = [enlarged(each.tensors[OFFSET], base.i2t.config.plane_resolution) for each in (first, second)]
    wanted = base.i2t.deviation * (0.25 * sizes[0] + 0.75 * sizes[1])
    torch.testing.assert_close(found, wanted.expand_as(found), rtol=1e-4, atol=1e-3)  # as above


def test_an_offset_of_other_planes_is_refused():
    base, style = i2t(), adapter(stride=2)
    for wrong in (torch.zeros(2, 4), torch.zeros(3, 5, 2, 2)):
        with pytest.raises(WeightsError, match="the adapter's offset .* does not fit the planes"):
            replace(style, tensors=style.tensors | {OFFSET: wrong}).applied(base)


@pytest.mark.parametrize(("train", "stride"), [("lora", 0), ("lora", 2), ("all", 0)])
def test_a_folder_gives_the_same_adapter(tmp_path, train, stride):
    style = adapter(train=train, stride=stride)
    style.save(tmp_path / "gold", Image.new("RGB", (8, 8)))
    again = StyleAdapter.load(tmp_path / "gold")
    assert again.about == style.about and set(again.tensors) == set(style.tensors)
    assert torch.equal(planes(again.applied(i2t())), planes(style.applied(i2t())))
    assert sorted(path.name for path in (tmp_path / "gold").iterdir()) == [ABOUT, DELTAS, "files.json", "sheet.png"]
    values = json.loads((tmp_path / "gold" / ABOUT).read_text())
    assert values["styles"] == ["style 0", "style 1"] and values["seeds"] == ["0", "1"] and values["start"] == 0.9
    assert values["scores"] == [{"name": "style", "value": 0.9}]


def test_another_base_is_refused_with_both_hashes():
    style, other = adapter(), i2t(seed=1)
    with pytest.raises(WeightsError, match=rf"tiny \({style.about.base_sha256[:12]}\), this one is [0-9a-f]{{12}}"):
        style.applied(other)
    with pytest.raises(WeightsError, match="this one is"):
        mix(PictureTo3D(other, styled().generator), [style], [1], [FRONTS])
    changed = i2t()
    changed.mean_planes[0, 0, 0, 0] += 1  # the mean planes belong to the network
    with pytest.raises(WeightsError, match="this one is"):
        style.applied(changed)


def damage(folder: Path, how: str) -> None:
    path = folder / ABOUT
    if how == "newer":
        path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    elif how == "missing":
        (folder / DELTAS).unlink()
    elif how == "changed":
        data = bytearray((folder / DELTAS).read_bytes())
        data[-1] ^= 1
        (folder / DELTAS).write_bytes(data)
    else:
        path.write_text(path.read_text().replace('"lora"', '"some"'))


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("newer", "format_version 2; this version"),
        ("missing", "missing: .deltas.safetensors"),
        ("changed", "changed: .deltas.safetensors"),
        ("unknown", "train must be 'lora' or 'all'"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, how, problem):
    adapter().save(tmp_path / "gold")
    damage(tmp_path / "gold", how)
    with pytest.raises(WeightsError, match=problem):
        StyleAdapter.load(tmp_path / "gold")


def test_deltas_without_their_other_half_are_refused(tmp_path):
    style = adapter()
    name = next(name for name in style.tensors if name.endswith(".up"))
    StyleAdapter(style.about, {n: x for n, x in style.tensors.items() if n != name}).save(tmp_path / "gold")
    with pytest.raises(WeightsError, match="holds no deltas of rank 2 for"):
        StyleAdapter.load(tmp_path / "gold")


def test_an_existing_folder_stays(tmp_path):
    adapter().save(tmp_path / "gold")
    before = (tmp_path / "gold" / DELTAS).read_bytes()
    with pytest.raises(WeightsError, match="exists and is not empty"):
        adapter(seed=1).save(tmp_path / "gold")
    assert (tmp_path / "gold" / DELTAS).read_bytes() == before


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_other_strengths_are_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        adapter().applied(i2t(), strength)


def test_an_adapter_of_one_face_says_so():
    assert adapter().note() is None
    assert "learnt on one face" in str(adapter(identities=1).note())


# Mixing.


def test_ends_of_a_mix_are_the_pure_styles():
    base, styles = styled(), [adapter(0), adapter(1, "all")]
    with torch.no_grad():
        pure = [PictureTo3D(style.applied(base.i2t, 0.8), base.generator).heads(FRONTS) for style in styles]
    fronts = [FRONTS, FRONTS]
    for weights, expected in (([1, 0], pure[0]), ([0, 3], pure[1])):
        found = mix(base, styles, weights, fronts, strength=0.8)
        assert torch.equal(found.planes, expected.planes) and torch.equal(found.ws, expected.ws)
    alone = mix(base, styles[:1], [0.3], fronts[:1], strength=0.8)
    assert torch.equal(alone.planes, pure[0].planes)


def test_a_mix_by_hand():
    """Codes and changes of weights are averaged with the same shares. Each style reads a front of its own."""
    base, styles, fronts = styled(), [adapter(0), adapter(1)], [FRONTS, FRONTS.flip(3)]
    found = mix(base, styles, [1, 3], fronts)
    with torch.no_grad():
        codes = [style.applied(base.i2t).encode(front) for style, front in zip(styles, fronts, strict=True)]
        expected = i2t()
        for name, weight in expected.named_parameters():
            for share, style in zip((0.25, 0.75), styles, strict=True):
                if (delta := style.changes().get(name)) is not None:
                    weight.add_(share * delta.reshape(weight.shape))
        code, w = (0.25 * a + 0.75 * b for a, b in zip(*codes, strict=True))
        torch.testing.assert_close(found.planes, expected.decode(code), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.ws[:, 0], w)
        assert found.view(cameras()).image.isfinite().all()


def test_shares():
    assert shares([1, 3]) == [0.25, 0.75] and shares([0.2]) == [1]


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [float("nan"), 1], ["a", 1]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises((ValueError, TypeError), match="weight"):
        shares(weights)


def test_as_many_weights_as_styles():
    with pytest.raises(ValueError, match="1 styles, 2 weights and 1 fronts"):
        mix(styled(), [adapter()], [1, 1], [FRONTS])
