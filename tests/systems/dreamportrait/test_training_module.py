"""Tests of the training step: stages, ablations, regularisers, schedules, random draws, bad input."""

import math

import pytest
import torch
from goldens import load
from lightning.pytorch import Callback
from same_states import assert_same
from tiny_training import Recorder, batch, config, fit, guide, loader, module
from torch import Tensor

from dreamportrait.systems.dreamportrait import step as training
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.systems.dreamportrait.step_settings import adam_settings, step_settings
from dreamportrait.training.guard import NonFiniteGuard
from dreamportrait.training.resting import resting
from dreamportrait.training.schedule import half_life

GOLDEN = load("losses").info
LONG = [{"name": "align", "images": 68, "guidance": True}]  # 17 steps


def weights(made: DreamPortraitModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


def moved(made: DreamPortraitModule, before: dict[str, Tensor]) -> set[str]:
    """Return the parts of the module in which any number has changed."""
    names = [name for name, value in made.state_dict().items() if not torch.equal(value, before[name])]
    return {".".join(name.split(".")[:2]) for name in names}


# Stages.


@pytest.mark.lengthy
def test_text_guides_in_the_second_stage_alone():
    c = config()
    made, seen = module(c), []

    def recording(images: Tensor, prompts: list[str], camera: Tensor) -> Tensor:
        seen.append((made.images, len(images), prompts, camera.clone()))
        return guide(images, prompts, camera)

    made.guide = recording
    record = Recorder()
    fit(made, record)
    assert made.images == 16 == c.total_images
    # Two parts per step. At the start of the stage, its gradient is measured on the same parts before (balance.py).
    assert [(images, count) for images, count, *_ in seen] == [(8, 2), (8, 2), (8, 2), (8, 2), (12, 2), (12, 2)]
    seen = seen[2:]
    assert ["guidance" in losses for losses in record.losses] == [False, False, True, True]
    batches = list(loader(c))[2:]
    for i, (_, _, prompts, camera) in enumerate(seen):
        part = batches[i // 2].part(i % 2, 2)
        assert prompts == part.fake.prompts and torch.equal(camera, part.fake.camera)


@pytest.mark.lengthy
def test_guidance_teaches_the_prompt():
    """Guidance must teach a brightness that depends on the prompt. Latents are the same before and after."""
    stages = [{"name": "align", "images": 240, "guidance": True}]
    c = config(stages=stages, loss={"gan_weight": 0.0, "blur_start": 0}, model={"freeze_discriminator": True})
    made, asked = module(c), batch(10, seed=3).fake
    z = torch.randn(10, 8, generator=torch.Generator().manual_seed(4))

    def error() -> float:
        with torch.no_grad():
            return float(guide(made.averaged(z, asked.camera, asked.text).image, asked.prompts, asked.camera))

    before = error()
    fit(made)
    assert error() < 0.3 * before


@pytest.mark.lengthy
def test_identities_are_kept():
    """A large keep_weight must keep w close to its start, while guidance moves it away."""
    stages = [{"name": "align", "images": 120, "guidance": True}]

    def way(weight: float) -> float:
        made = module(config(stages=stages, loss={"gan_weight": 0.0, "keep_weight": weight}))
        record = Recorder()
        fit(made, record)
        assert ("keep" in record.losses[-1]) == (weight > 0)
        asked = batch(10, seed=3).fake
        z = torch.randn(10, 8, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            return float(made.generator.moved(z, asked.camera, asked.text).square().mean())

    assert way(100.0) < 0.5 * way(0.0)


@pytest.mark.lengthy
def test_no_mapper_and_none_to_keep():
    record = Recorder()
    local = {"conditioning": {"global_path": False, "token_dim": 8, "heads": 2}}
    fit(module(config(model=local, loss={"keep_weight": 1.0})), record)
    assert not any("keep" in losses for losses in record.losses)


def test_a_guide_is_needed():
    with pytest.raises(ValueError, match=r"guidance.kind=clip and no guide was given"):
        module(guided=False)
    assert module(config(guidance={"kind": "none"}), guided=False).guide is None


@pytest.mark.lengthy
def test_no_guidance_in_the_second_stage():
    record = Recorder()
    fit(module(config(guidance={"kind": "none"}), guided=False), record)
    assert not any("guidance" in losses for losses in record.losses)


@pytest.mark.lengthy
def test_the_guard_knows_the_optimisers_of_a_frozen_generator(tmp_path):
    """Without weights of the generator, the first group of its optimiser is the mapper's."""
    made = module(config(model={"freeze_generator": True}))
    fit(made, NonFiniteGuard(tmp_path))
    assert made.images == 16 and not list(tmp_path.iterdir())


# Ablations.

GENERATOR = {"generator.generator", "averaged.generator"}
LISTENERS = {f"{whole}.{part}" for whole in ("generator", "averaged") for part in ("mapper", "adapters")}
CRITIC = {"critic.discriminator"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, GENERATOR | LISTENERS | CRITIC),
        ({"freeze_generator": True}, LISTENERS | CRITIC),
        ({"freeze_discriminator": True}, GENERATOR | LISTENERS),
        ({"freeze_generator": True, "freeze_discriminator": True}, LISTENERS),
        (
            {"conditioning": {"local_path": False}},
            GENERATOR | CRITIC | {f"{x}.mapper" for x in ("generator", "averaged")},
        ),
        (
            {"conditioning": {"global_path": False, "token_dim": 8, "heads": 2}},
            (GENERATOR | LISTENERS | CRITIC) - {"generator.mapper", "averaged.mapper"},
        ),
    ],
    ids=["all", "G frozen", "D frozen", "both frozen", "no local path", "no global path"],
)
@pytest.mark.lengthy
def test_what_moves(changes, expected):
    c = config(model=changes)
    made = module(c)
    before = weights(made)
    fit(made)
    assert moved(made, before) == expected
    still = [name for name, p in made.generator.named_parameters() if torch.equal(p, before[f"generator.{name}"])]
    if not changes.get("freeze_generator"):
        assert still == []  # every weight of the trained generator has changed
    frozen = [p for p in made.critic.parameters() if not p.requires_grad]
    assert len(frozen) == (len(list(made.critic.parameters())) if changes.get("freeze_discriminator") else 0)


@pytest.mark.lengthy
def test_a_critic_that_reads():
    made = module(config(loss={"text_aware_discriminator": True, "blur_start": 0}))
    before = weights(made)
    fit(made)
    assert "critic.projection" in moved(made, before)
    assert math.isfinite(float(made.losses["mismatch"]))


def test_a_critic_that_reads_is_shown_real_pictures_with_the_prompts_of_others(monkeypatch):
    made = module(config(loss={"text_aware_discriminator": True}))
    seen = []
    monkeypatch.setattr(made.critic, "forward", lambda image, raw, camera, eot: seen.append((image, eot)) or eot[:, :1])
    part, now = batch(read=True), step_settings(made.config, 0)
    made.judge_real(part, now), made.judge_mismatched(part, now)
    (real, own), (same, other) = seen
    assert torch.equal(real, same) and torch.equal(other, own.roll(1, 0)) and not torch.equal(own, other)


def test_resting_lets_gradients_through():
    net, x = torch.nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    net.bias.requires_grad_(False)
    with resting(net):
        net(x).sum().backward()
    assert x.grad is not None and net.weight.grad is None
    assert net.weight.requires_grad and not net.bias.requires_grad


# Regularisers and schedules.


@pytest.mark.lengthy
def test_regularisers_come_when_they_are_due_with_their_weights(monkeypatch):
    """Check 17 steps with the published intervals. Each loss is a stand-in whose gradient is the weight of the loss."""
    probes = {name: torch.ones([], requires_grad=True) for name in ("gan", "density", "r1", "guide")}
    monkeypatch.setattr(training, "generator_loss", lambda logits: probes["gan"] + 0 * logits.sum())
    monkeypatch.setattr(training, "density_regularization", lambda *_: probes["density"] * 1)
    monkeypatch.setattr(training, "r1_penalty", lambda *_: probes["r1"].expand(4))
    c = config(
        loss={"gan_weight": 0.7, "guidance_weight": 0.3, "r1_gamma": 5.0, "r1_every": 16, "density_every": 4},
        stages=LONG,
    )
    made = module(c)
    made.guide = lambda images, prompts, camera: probes["guide"] + 0 * images.sum()
    seen: list[list[float]] = []

    class Read(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            seen.append([0.0 if p.grad is None else round(float(p.grad), 6) for p in probes.values()])
            for probe in probes.values():
                probe.grad = None

    fit(made, Read())
    gains, order = GOLDEN["phases"]["gain"], GOLDEN["phases"]["order_by_batch_idx"]
    assert len(seen) == 17
    for step, phases in order.items():
        if int(step) < 17:
            density, r1 = (gains[name] if name in phases else 0 for name in ("Greg", "Dreg"))
            assert seen[int(step)] == pytest.approx([0.7, density * 0.25, r1 * 5.0 / 2, 0.3]), step
    assert [i for i, row in enumerate(seen) if row[1]] == [0, 4, 8, 12, 16]
    assert [i for i, row in enumerate(seen) if row[2]] == [0, 16]


@pytest.mark.lengthy
def test_optimisers_are_those_published():
    """EG3D corrects learning rates for the extra updates of its regularisers, which have no updates of their own here.

    So the rates are those before the correction, with and without regularisers.
    """
    expected = GOLDEN["optimizers"]["base"]
    generator, critic = fit(module(config(loss={"r1_every": 16, "density_every": 4}))).optimizers
    groups = [*generator.param_groups, *critic.param_groups]
    assert [group["name"] for group in groups] == ["generator", "mapper", "adapters", "discriminator"]
    for group, name in zip(groups, "GGGD", strict=True):
        assert group["lr"] == pytest.approx(expected[name]["lr"], rel=1e-12)
        assert group["betas"] == pytest.approx(expected[name]["betas"], rel=1e-12)
        assert group["eps"] == expected[name]["eps"]
    assert adam_settings(config(loss={"density_weight": 0.0, "r1_gamma": 0.0})) == adam_settings(config())


def test_what_holds_at_a_step():
    c = config(
        loss={"blur_start": 10, "blur_fade_images": 8, "swap_probability": 0.5, "swap_fade_images": 16, "r1_gamma": 0.0}
    )
    seen = [step_settings(c, images) for images in (0, 4, 8, 12)]
    assert [now.stage.name for now in seen] == ["adapt", "adapt", "align", "align"]
    assert [now.guided for now in seen] == [False, False, True, True]
    assert [now.sigma for now in seen] == [10, 5, 0, 0]
    assert [now.swap for now in seen] == [1, 0.875, 0.75, 0.625]
    assert [now.density_due for now in seen] == [True, False, True, False]
    assert not any(now.r1_due for now in seen)
    assert step_settings(config(loss={"swap_probability": None}), 0).swap is None
    assert c.stage_ends() == [8, 16]


def test_the_blur_is_the_same_for_all_that_the_critic_sees(monkeypatch):
    """Real, generated and real raw pictures must have the same blur; generated raw pictures are not blurred."""
    blurred: list[tuple[int, float]] = []

    def recording(images: Tensor, sigma: float) -> Tensor:
        blurred.append((images.shape[-1], sigma))
        return images

    monkeypatch.setattr(training, "blur", recording)
    c = config(
        loss={"blur_start": 4.0, "blur_fade_images": 8, "r1_gamma": 0.0}, stages=[{"name": "adapt", "images": 8}]
    )
    fit(module(c))
    # Generated pictures for the generator's update, then real ones with their raw ones, then generated ones again. At
    # the start of the stage, generated ones also for the length of the gradient (balance.py).
    assert blurred == [(16, 4.0)] + [(size, sigma) for sigma in (4.0, 2.0) for size in (16, 16, 8, 16)]


def test_another_camera_conditions_as_often_as_asked(monkeypatch):
    made, drawn = module(config()), batch(4)
    used: list[Tensor] = []
    now = step_settings(made.config, 0)
    for swap in (0.0, 1.0, None):
        _, camera = made.draw_identities(drawn, type(now)(**vars(now) | {"swap": swap}))
        used.append(camera)
    assert torch.equal(used[0], drawn.fake.camera) and torch.equal(used[1], drawn.real.camera) and not used[2].any()
    torch.manual_seed(0)
    z, camera = made.draw_identities(batch(400), now)
    share = (camera == batch(400).real.camera).all(1).float().mean()
    assert abs(float(share) - 0.5) < 0.08 and z.std() == pytest.approx(1, abs=0.05)
    assert torch.unique(z, dim=0).shape == z.shape


def test_the_average_follows():
    """Compute one step by hand. Beta has no ramp, because the network was trained before."""
    c = config(optim={"ema_images": 16}, stages=[{"name": "adapt", "images": 4}])
    made = module(c)
    before = weights(made)
    fit(made)
    beta = half_life(4, 16)
    assert beta == pytest.approx(0.5**0.25)
    for name, now in made.generator.named_parameters():
        expected = beta * before[f"generator.{name}"] + (1 - beta) * now
        torch.testing.assert_close(dict(made.averaged.named_parameters())[name], expected, rtol=1e-5, atol=1e-6)


def test_the_centre_of_truncation_follows_all_parts():
    made = module()
    centre = made.generator.generator.backbone.mapping.w_avg
    with torch.no_grad():
        centre.copy_(torch.linspace(-1, 1, 16))
    first, second = batch(3, seed=1).fake.camera, batch(3, seed=2).fake.camera
    z = torch.randn(6, 8)
    w = made.generator.generator.map(z, torch.cat([first, second]))[:, 0].mean(0)
    made.follow_centre([(z[:3], first), (z[3:], second)])
    torch.testing.assert_close(centre, 0.998 * torch.linspace(-1, 1, 16) + 0.002 * w.detach())
    frozen = module(config(model={"freeze_generator": True}))
    before = frozen.generator.generator.backbone.mapping.w_avg.clone()
    frozen.follow_centre([(z[:3], first)])
    assert torch.equal(frozen.generator.generator.backbone.mapping.w_avg, before)


# Random draws.


@pytest.mark.lengthy
def test_every_step_has_draws_of_its_own_that_return():
    """Draws of a step must not depend on how torch's random generator was used between the steps."""

    class Disturb(Callback):
        def on_train_batch_start(self, *_):
            torch.manual_seed(77)
            torch.randn(3)

    runs = [Recorder() for _ in range(3)]
    quiet, disturbed, other = module(), module(), module(config(run={"name": "x", "seed": 6}))
    fit(quiet, runs[0])
    fit(disturbed, runs[1], Disturb())
    fit(other, runs[2])
    assert runs[0].losses == runs[1].losses != runs[2].losses
    assert_same(quiet.state_dict(), disturbed.state_dict())
    assert len({losses["generator"] for losses in runs[0].losses}) == 4


@pytest.mark.lengthy
def test_steps_of_the_optimisers_are_not_progress():
    made = module()
    runner = fit(made)
    assert runner.global_step == 8 and made.images == 16  # two optimisers, four steps of four images


# Bad input.


@pytest.mark.parametrize(("count", "parts"), [(3, 1), (8, 1)])
def test_the_batch_must_be_whole(count, parts):
    with pytest.raises(ValueError, match=rf"a batch of {count} in each of 1 processes, in {parts} parts: .*batch=4"):
        fit(module(), data=[batch(count)])


def test_parts_must_be_equal():
    c = config(stages=[{"name": "adapt", "images": 8, "accumulate": 4}])
    made = module(c)
    object.__setattr__(c.stages[0], "accumulate", 3)  # the configuration would refuse this value
    with pytest.raises(ValueError, match=r"in 3 parts: must be equal parts of data.batch=4"):
        fit(made, data=[batch(4)])
