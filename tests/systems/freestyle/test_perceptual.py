"""Tests of the perceptual distances."""

import warnings

import pytest
import torch

from dreamportrait.core.errors import WeightsError
from dreamportrait.systems.freestyle import perceptual
from dreamportrait.systems.freestyle.perceptual import Lpips, load_heads, make_perceptual, unit

NUMBERS = torch.Generator().manual_seed(0)
A, B = torch.rand(2, 2, 3, 64, 64, generator=NUMBERS) * 2 - 1


def test_features_have_length_1_at_each_position():
    x = unit(torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]]))
    torch.testing.assert_close(x, torch.tensor([[[[0.6, 0.0]], [[0.8, 0.0]]]]))


@pytest.mark.lengthy
def test_lpips_is_that_of_torchmetrics():
    from torchmetrics.functional.image.lpips import _LPIPS

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision's former names of arguments
        other = _LPIPS(pretrained=True, net="vgg", pnet_rand=True).eval()
    made = Lpips()
    slices = [getattr(other.net, f"slice{i}") for i in range(1, 6)]
    layers = {name: layer for part in slices for name, layer in part.named_children()}
    for name, layer in made.features.named_children():
        layer.load_state_dict(layers[name].state_dict())
    load_heads(made)
    with torch.no_grad():
        expected = other(A, B).mean()
        # Random networks give small distances; sums in another order.
        torch.testing.assert_close(made(A, B), expected, rtol=1e-4, atol=1e-7)
        assert float(expected) > 0 and float(made(A, A)) == 0


def test_stages_of_a_clip():
    distance = make_perceptual("clip:mini/clip-a")
    assert distance is not None
    seen = A.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(seen, B), seen)
    assert float(distance(A, A)) == 0 and slope.isfinite().all() and slope.any()
    assert float(distance(A, B)) > float(distance(A, 0.9 * A + 0.1 * B)) > 0


def test_none():
    assert make_perceptual("none") is None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("vgg", "must be lpips:FILE, clip:SOURCE or none"),
        ("clip:", "must be lpips:FILE"),
        ("clip:mini/clip-b", "scores results and must not see training"),
        ("clip:mini/clip-t", "scores results"),
        ("lpips:/no/such.pth", "is not there; get vgg16-397923af.pth"),
    ],
)
def test_wrong_sources_are_refused(source, problem):
    with pytest.raises(WeightsError, match=problem):
        make_perceptual(source)


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / perceptual.VGG_FILE
    path.write_bytes(b"x")
    with pytest.raises(WeightsError, match="other weights; get vgg16"):
        make_perceptual(f"lpips:{path}")
