"""Tests of pretraining: eq. 4, what is recorded, and runs that were stopped."""

import pytest
import torch
from tiny_freestyle import GENERATOR, cameras, generator, styled

from dreamportrait.core.signals import Interrupted, Signals
from dreamportrait.eg3d.planes import camera_angles
from dreamportrait.systems.freestyle.network import Prediction
from dreamportrait.systems.freestyle.pretraining import (
    PretrainSettings,
    draw_cameras,
    draw_pairs,
    plane_error,
    pretrain,
    pretraining_losses,
)

SETTINGS = PretrainSettings(images=16, batch=2, statistics=4, render_share=0.25)


def test_eq_4_by_hand():
    network = styled().i2t
    planes = torch.zeros(1, 3, 4, 16, 16)
    network.deviation.fill_(4)
    assert float(plane_error(network, planes + 2, planes, "raw")) == 2
    assert float(plane_error(network, planes + 2, planes, "scaled")) == 0.5


def test_pairs_are_the_generators_own_heads():
    made = generator()
    torch.manual_seed(3)
    pairs = draw_pairs(made, 2, 0.7)
    ws = pairs.w[:, None].expand(-1, made.num_ws, -1)
    with torch.no_grad():
        assert torch.equal(pairs.planes, made.synthesize_planes(ws, noise="const"))
        front = made.render(pairs.planes, GENERATOR.around([0.0]).expand(2, -1), w=ws).image
    torch.testing.assert_close(pairs.front, front.clamp(-1, 1))
    torch.manual_seed(3)
    assert torch.equal(draw_pairs(made, 2, 0.7).front, pairs.front)


def test_cameras_are_within_their_angles():
    torch.manual_seed(0)
    angles = camera_angles(draw_cameras(generator(), 40, 25, 7), (0, 0, 0)).abs()
    assert float(angles[:, 0].max()) <= 25.01 and float(angles[:, 1].max()) <= 7.01
    assert float(angles[:, 0].max()) > 20 and float(angles[:, 1].max()) > 5


def test_renders_count_in_the_last_part():
    assert [SETTINGS.renders(step) for step in range(8)] == [False] * 6 + [True] * 2
    assert not any(PretrainSettings(render_share=0).renders(step) for step in (0, 99_999))


def test_the_losses_of_a_step():
    made = styled()
    pairs = draw_pairs(made.generator, 2, 1.0)
    assert set(pretraining_losses(made, pairs, SETTINGS)) == {"planes", "w"}
    losses = pretraining_losses(made, pairs, SETTINGS, cameras(), lambda a, b: (a - b).square().mean())
    assert set(losses) == {"planes", "w", "render", "perceptual"}
    torch.testing.assert_close(
        losses["planes"], plane_error(made.i2t, made.heads(pairs.front).planes, pairs.planes, "scaled")
    )
    # A perfect prediction gives the recorded render: same head, same camera.
    perfect = Prediction(pairs.planes, pairs.w, pairs.planes)
    seen = made.render(perfect, cameras()).image
    ws = made.ws(pairs.w)
    torch.testing.assert_close(seen, made.generator.render(pairs.planes, cameras(), w=ws).image)


@pytest.mark.lengthy
def test_a_stopped_run_continues_to_the_bit(tmp_path, capsys):
    whole = pretrain(styled(), SETTINGS, tmp_path / "whole")
    signals = Signals()

    def ask_for_the_end(done: int) -> None:
        if done == 3:
            signals.received = 15

    with pytest.raises(Interrupted):
        pretrain(styled(), SETTINGS, tmp_path / "parts", signals=signals, every={1: ask_for_the_end})
    again = pretrain(styled(), SETTINGS, tmp_path / "parts")
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(whole.const, styled().i2t.const)


@pytest.mark.lengthy
def test_it_learns_the_generators_heads(tmp_path, capsys):
    """The error of planes of unseen heads falls."""
    settings = PretrainSettings(images=240, batch=4, statistics=64, render_share=0, ema_images=16, lr=0.01)
    made = styled()
    average = pretrain(made, settings, tmp_path)
    torch.manual_seed(99)
    pairs = draw_pairs(made.generator, 16, 1.0)
    with torch.no_grad():
        error = plane_error(average, average(pairs.front).planes, pairs.planes, "scaled")
        start = styled()
        start.i2t.set_statistics(average.mean_planes, average.deviation[..., 0, 0])
        untrained = plane_error(start.i2t, start.heads(pairs.front).planes, pairs.planes, "scaled")
    assert float(error) < 0.6 * float(untrained)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"render_share": 1.5}, "render_share=1.5: must be within 0 .. 1"),
        ({"plane_loss": "l2"}, "plane_loss='l2': must be one of scaled, raw"),
        ({"batch": 0}, "batch"),
    ],
)
def test_wrong_settings_are_refused(change, problem):
    with pytest.raises(ValueError, match=problem):
        PretrainSettings(**change)
