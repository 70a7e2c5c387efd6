"""Tests of tuning: eq. 5 to 7, what is trained, and runs that were stopped."""

from dataclasses import replace

import pytest
import torch
from tiny_freestyle import FRONTS, cameras, few_shot, generator, styled

from dreamportrait.core.errors import NonFiniteLoss
from dreamportrait.core.signals import Interrupted, Signals
from dreamportrait.systems.freestyle import tuning
from dreamportrait.systems.freestyle.adapted import LowRankNetwork, adapted_shapes, differences, with_changes
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.network import ImageToTriplane
from dreamportrait.systems.freestyle.smooth import enlarged
from dreamportrait.systems.freestyle.tuning import (
    FLOOR,
    TuneSettings,
    floor_loss,
    input_fronts,
    reconstruction_loss,
    tune,
    tuning_losses,
)
from dreamportrait.training.losses import density_points, density_regularization

SETTINGS = TuneSettings(steps=6, views=2, rank=2, lr=0.01)


def test_eq_5_to_7_by_hand():
    made, (images, wanted) = styled(), (few_shot().images[0, :2], cameras())
    torch.manual_seed(0)
    losses = tuning_losses(made, made.i2t, FRONTS[:1], images, wanted, TuneSettings(), lambda a, b: (a - b).abs().max())
    prediction = made.i2t(FRONTS[:1])
    views = torch.cat([made.render(prediction, camera[None]).image for camera in wanted])
    error = (views - images).abs()
    # Several views of one head are rendered at once, which rounds differently.
    torch.testing.assert_close(losses["reconstruction"], 10 * (error.mean() + error.max()), rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    rough = density_regularization(made.generator, prediction.planes, *density_points(1))
    torch.testing.assert_close(losses["density"], 0.2 * rough)
    assert set(losses) == {"reconstruction", "density"}
    plain = tuning_losses(made, made.i2t, FRONTS[:1], images, wanted, TuneSettings(density_weight=0))
    assert set(plain) == {"reconstruction"}
    torch.testing.assert_close(reconstruction_loss(images, images + 0.5, None), torch.tensor(0.5))


def test_empty_space_is_lifted_to_the_floor(monkeypatch):
    made, (images, wanted) = styled(), (few_shot().images[0, :2], cameras())
    planes = made.planes(made.i2t(FRONTS[:1])).planes.detach()
    points = torch.tensor([[[0.0, 0.1, 0.0], [0.1, 0.0, -0.1]]])
    density = made.generator.sample_density_and_color(points, planes)[0][0, :, 0].detach()
    assert (density > FLOOR).all() and floor_loss(made.generator, planes, points) == 0
    middle = float(density.mean())  # one of the two points is below it
    monkeypatch.setattr(tuning, "FLOOR", middle)
    assert floor_loss(made.generator, planes, points).item() == pytest.approx((middle - float(density.min())) / 2)
    monkeypatch.setattr(tuning, "FLOOR", 100.0)
    settings = TuneSettings(floor_weight=0.5)
    losses = tuning_losses(made, made.i2t, FRONTS[:1], images, wanted, settings)
    assert losses["floor"].item() == pytest.approx(50, abs=5)  # half of 100 less the densities, which are small


def test_deltas_start_as_the_base():
    base = styled().i2t
    made, expected = LowRankNetwork(base, 4, 0)(FRONTS), base(FRONTS)
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


def test_what_a_style_changes():
    names = adapted_shapes(styled().i2t)
    parts = ("encoder.code.conv0", "encoder.enlarge.8", "layers.16.conv", "layers.16.modulation.hidden")
    assert {f"{part}.weight" for part in parts} <= set(names)
    assert "layers.16.to_planes.weight" in names
    assert not any("stem" in name or "halve" in name for name in names)


@pytest.mark.lengthy
@pytest.mark.parametrize(("train", "stride"), [("lora", 0), ("lora", 2), ("all", 0)])
def test_only_what_is_to_be_trained_changes(tmp_path, capsys, train, stride):
    base = styled()
    networks = {"base": base.i2t, "generator": base.generator}
    before = {place: {n: x.clone() for n, x in net.state_dict().items()} for place, net in networks.items()}
    settings = TuneSettings(**{**vars(SETTINGS), "train": train, "steps": 3, "offset_stride": stride})
    tuned = tune(base, few_shot(), settings, tmp_path)
    for place, network in networks.items():
        assert all(torch.equal(x, before[place][n]) for n, x in network.state_dict().items())
        assert all(p.grad is None for p in network.parameters())
    if train == "lora":
        assert isinstance(tuned, LowRankNetwork)
        extra = 1 if stride else 0  # the offset; the base is not saved
        assert len(tuned.state_dict()) == 2 * len(adapted_shapes(base.i2t)) + extra
        offset = {name: enlarged(x, base.i2t.config.plane_resolution) for name, x in tuned.offset().items()}
        assert len(offset) == extra and all(x.any() for x in offset.values())
        changes = tuned.deltas() | offset
        assert any(delta.any() for delta in tuned.deltas().values())
    else:
        assert isinstance(tuned, ImageToTriplane)
        changes = differences(tuned, base.i2t)
        assert all(delta.any() for delta in changes.values())
    again = with_changes(base.i2t, [(1.0, changes)])
    with torch.no_grad():
        # W + (W' - W) is W' up to rounding
        torch.testing.assert_close(again(FRONTS).planes, tuned(FRONTS).planes, rtol=1e-3, atol=1e-3)


@pytest.mark.lengthy
def test_it_learns_the_views(tmp_path, capsys):
    base, data = styled(), few_shot(identities=1)
    data.pixels.copy_(torch.full_like(data.pixels, 200))  # a grey head is easily learnt
    settings = TuneSettings(steps=40, views=3, train="all", input="edited", density_weight=0, lr=0.01)
    tuned = tune(base, data, settings, tmp_path)

    def error(network: torch.nn.Module) -> float:
        losses = tuning_losses(base, network, data.fronts, data.images[0], data.cameras, settings)
        return float(losses["reconstruction"].detach())

    assert error(tuned) < 0.5 * error(base.i2t)


@pytest.mark.lengthy
def test_a_stopped_run_continues_to_the_bit(tmp_path, capsys):
    whole = tune(styled(), few_shot(), SETTINGS, tmp_path / "whole")
    signals = Signals()
    signals.received = 15  # the loop ends after its first step
    with pytest.raises(Interrupted):
        tune(styled(), few_shot(), SETTINGS, tmp_path / "parts", signals=signals)
    again = tune(styled(), few_shot(), SETTINGS, tmp_path / "parts")
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.lengthy
def test_the_guess_may_be_taught_the_unedited_head(tmp_path, capsys):
    base, data = styled(), few_shot()
    w = data.heads(base.generator).ws[:, 0]
    settings = replace(SETTINGS, steps=40, train="all", input="edited", lr=0.02)

    def error(network) -> float:
        with torch.no_grad():
            return float((network(data.fronts).w - w).abs().mean())

    free, taught = (tune(base, data, replace(settings, w_weight=x), tmp_path / str(x)) for x in (0.0, 5.0))
    assert error(taught) < 0.7 * min(error(base.i2t), error(free))


@pytest.mark.lengthy
def test_the_rate_may_fall(tmp_path, capsys, monkeypatch):
    seen = []
    whole = tuning.set_lr

    def noted(optimizer, rate):
        seen.append(rate)
        whole(optimizer, rate)

    monkeypatch.setattr(tuning, "set_lr", noted)
    tune(styled(), few_shot(), SETTINGS, tmp_path / "even")
    assert seen == []
    tune(styled(), few_shot(), replace(SETTINGS, decay=True), tmp_path / "falling")
    assert len(seen) == 6 and seen[-1] < SETTINGS.lr and max(seen) <= SETTINGS.lr


def test_a_loss_that_is_not_finite_names_its_step(tmp_path, capsys):
    with pytest.raises(NonFiniteLoss, match="step 1"):
        tune(styled(), few_shot(), SETTINGS, tmp_path, perceptual=lambda a, b: a.mean() * float("nan"))


def test_inputs():
    base, data = PictureTo3D(styled().i2t, generator()), few_shot()
    assert torch.equal(input_fronts(base, data, "edited"), data.fronts)
    source = input_fronts(base, data, "source")
    front = base.generator.config.around([0.0])
    torch.testing.assert_close(source[1:], data.heads(base.generator)[1].view(front).image.clamp(-1, 1))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"train": "some"}, "train='some': must be one of lora, all"),
        ({"input": "photo"}, "input='photo': must be one of source, edited"),
        ({"lr": 0}, "lr=0: must be positive"),
        ({"rec_weight": -1}, "rec_weight=-1: must not be negative"),
        ({"views": 0}, "views"),
    ],
)
def test_wrong_settings_are_refused(change, problem):
    with pytest.raises(ValueError, match=problem):
        TuneSettings(**change)
