"""Tests of the training stages of the miniature EG3D on a smaller network: they run, learn and continue exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.superresolution import SuperResolutionSpec
from dreamportrait.mini.eg3d import details, gan, mapping, warm
from dreamportrait.mini.eg3d.config import DISCRIMINATOR, GENERATOR
from dreamportrait.miniworld.attributes import (
    ATTRIBUTES,
    Z_DIM,
    is_held_out,
    is_visible,
    read_code,
    sample_codes,
    to_vector,
)
from dreamportrait.miniworld.faces import render
from dreamportrait.miniworld.world import World, random_cameras
from dreamportrait.training.checkpoints import load_state

SIZE = 16
SMALL = replace(
    GENERATOR,
    w_dim=16,
    plane_resolution=16,
    plane_channels=4,
    channel_base=128,
    channel_max=8,
    decoder_hidden=8,
    render_resolution=SIZE,
    num_coarse=6,
    num_fine=6,
    superresolution=SuperResolutionSpec(SIZE, (4, 4), (1, 1), own_filter=False),
)
SMALL_D = replace(DISCRIMINATOR, image_resolution=SIZE, channel_base=128, channel_max=8)


@pytest.fixture(scope="module")
def world() -> World:
    codes, cameras = sample_codes(12, 0), random_cameras(12, 0)
    pictures = [render(*read_code(z), camera, SIZE) for z, camera in zip(codes, cameras, strict=True)]
    images = np.stack([p.image.transpose(2, 0, 1) for p in pictures])
    return World("train", images, np.stack([p.depth for p in pictures]).astype(np.float16), codes, cameras)


def student() -> warm.Student:
    torch.manual_seed(0)
    return warm.Student(SMALL)


def assert_same(first: Path, second: Path) -> None:
    a, b = load_state(first), load_state(second)
    assert a is not None and b is not None
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.lengthy
def test_regression_lowers_the_error_on_its_faces(world: World, tmp_path: Path) -> None:
    def error(s: warm.Student) -> float:
        torch.manual_seed(0)
        batch = warm.Batch(world, torch.arange(12))
        with torch.no_grad():
            return float(sum(warm.regression_losses(s(batch.vector, batch.camera), batch).values()))

    fresh = student()
    before = error(fresh)
    trained = warm.train(tmp_path, world, fresh, steps=150, resolution=SIZE, batch=4)
    assert error(trained) < 0.8 * before


@pytest.mark.lengthy
def test_regression_continues_exactly(world: World, tmp_path: Path) -> None:
    warm.train(tmp_path / "whole", world, student(), steps=4, resolution=8, batch=2)
    _interrupted(
        lambda steps: warm.train(tmp_path / "parts", world, student(), steps=4, resolution=8, batch=2), tmp_path
    )
    assert_same(tmp_path / "whole/state.pt", tmp_path / "parts/state.pt")


# More weight on small attributes.


def test_one_small_attribute_is_changed() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    for z in sample_codes(60, 1):
        before, traits = read_code(z)
        code, name = details.changed(z, rng)
        after, same = read_code(code)
        assert np.array_equal(traits, same)
        if name is None:  # every change would give a pair of attributes that training must not show
            assert is_held_out(before) and before == after
        else:
            assert before[name] != after[name] and is_visible(after, name) and not is_held_out(after)


def test_a_value_can_be_put_into_a_code() -> None:
    z = sample_codes(1, 0)[0]
    for value in ATTRIBUTES["background"]:
        assert read_code(details.with_value(z, "background", value))[0]["background"] == value


def test_doubles_are_the_same_faces_with_one_thing_changed(world: World, tmp_path: Path) -> None:
    found = details.doubles(world, 12, tmp_path, workers=1)
    rng = np.random.Generator(np.random.PCG64(details.SEED))
    for i, z in enumerate(world.codes):
        code, name = details.changed(z, rng)
        other = render(*read_code(code), world.cameras[i], SIZE).image.transpose(2, 0, 1)
        assert np.array_equal(found.images[i], other)
        assert np.array_equal(found.vectors[i], to_vector(*read_code(code)))
        seen = np.abs(other.astype(int) - world.images[i]).mean(0).sum() >= details.LEAST_CHANGE
        assert found.kinds[i] == (list(details.SMALL).index(name) if seen else -1)
    again = details.doubles(world, 12, tmp_path)  # read from the file
    assert torch.equal(again.images, found.images) and (found.kinds >= 0).any()


def test_changes_count_relative_to_their_size() -> None:
    real, fake = torch.zeros(4, 5, 3), torch.zeros(4, 5, 3)  # two faces, then their doubles
    real[2], real[3] = 0.5, 1.0
    fake[2], fake[3] = 0.25, 0.5  # half of each change
    fake[0:4] += 0.3  # what both pictures of a pair share does not count
    assert float(details.relative_difference(fake, real)) == pytest.approx(0.5, abs=1e-6)
    real[2] = details.LEAST_WANTED / 2  # a change that can hardly be seen counts less
    fake[2] = fake[0]
    assert float(details.relative_difference(fake, real)) == pytest.approx((0.5 + 0.5) / 2, abs=1e-6)


def test_rays_are_the_pixels_of_the_picture(world: World) -> None:
    s, real = student(), warm.Batch(world, torch.arange(2))
    chosen = torch.tensor([[0, 5, SIZE * SIZE - 1]]).expand(2, -1)
    with torch.no_grad():
        torch.manual_seed(0)
        color, depth = s.along_rays(real.vector, real.camera, chosen)
        whole = s(real.vector, real.camera)
    # Samples along rays are drawn anew, so colours agree only about; other pixels differ by far more.
    pixels = whole.image_raw.flatten(2)[..., chosen[0]].transpose(1, 2)
    assert color.shape == (2, 3, 3) and depth.shape == (2, 3, 1)
    assert float((color - pixels).abs().mean()) < 0.1


@pytest.mark.lengthy
def test_details_continue_exactly(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(details, "WHOLE_EVERY", 2)
    monkeypatch.setattr(details, "RAYS", 16)
    others = details.doubles(world, 12, tmp_path / "doubles", workers=1)
    details.train(tmp_path / "whole", world, student(), others, steps=4, batch=4)
    _interrupted(lambda steps: details.train(tmp_path / "parts", world, student(), others, steps=4, batch=4), tmp_path)
    assert_same(tmp_path / "whole/state.pt", tmp_path / "parts/state.pt")


def _interrupted(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Stop a run right after it saves its state at step 2 of 4, then start it again from that state."""
    from dreamportrait.training import loop
    from dreamportrait.training.checkpoints import save_state

    original = save_state
    saves: list[int] = []

    class Stop(Exception):
        pass

    def counting(path, state):  # type: ignore[no-untyped-def]
        original(path, state)
        saves.append(state["step"])
        if state["step"] == 2:
            raise Stop

    patch = pytest.MonkeyPatch()
    plain = loop.fit
    try:
        patch.setattr(loop, "save_state", counting)
        for module in (warm, details, gan, mapping):
            patch.setattr(module, "fit", lambda *a, **k: plain(*a, **(k | {"save_every": 2})))
        with pytest.raises(Stop):
            run(4)
        run(4)
    finally:
        patch.undo()
    assert saves == [2, 4]


@pytest.mark.lengthy
def test_the_mapping_learns_the_code(tmp_path: Path) -> None:
    s = student()
    with torch.no_grad():
        s.mapper.out.weight *= 20  # w is then as far from its mean as after training
    explained = mapping.train(tmp_path, s.generator, s.mapper, steps=300, pairs=4000)
    assert explained > 0.05  # predicting the mean would explain 0
    centre = s.generator.backbone.mapping.w_avg
    assert centre.abs().max() > 0


@pytest.mark.lengthy
def test_adversarial_steps_move_both_networks_and_continue_exactly(world: World, tmp_path: Path) -> None:
    plan = gan.GanPlan(alone=2, steps=4, batch=4, anchor_every=3)

    def run(folder: Path) -> tuple[warm.Student, DualDiscriminator]:
        s = student()
        torch.manual_seed(1)
        d = DualDiscriminator(SMALL_D)
        gan.train(folder, world, s, d, plan)
        return s, d

    moved, critic = run(tmp_path / "whole")
    fresh = student()
    torch.manual_seed(1)
    changed = [not torch.equal(a, b) for a, b in zip(moved.parameters(), fresh.parameters(), strict=True)]
    assert sum(changed) > 0.8 * len(changed)
    assert not torch.equal(critic.b4.out.weight, DualDiscriminator(SMALL_D).b4.out.weight)
    _interrupted(lambda steps: run(tmp_path / "parts"), tmp_path)
    assert_same(tmp_path / "whole/state.pt", tmp_path / "parts/state.pt")


def test_the_generator_rests_while_the_discriminator_learns_alone(world: World, tmp_path: Path) -> None:
    s = student()
    gan.train(tmp_path, world, s, DualDiscriminator(SMALL_D), gan.GanPlan(alone=2, steps=2, batch=4))
    for moved, still in zip(s.parameters(), student().parameters(), strict=True):
        torch.testing.assert_close(moved, still, rtol=0, atol=0)


def test_sizes_fit_the_identity_code() -> None:
    assert GENERATOR.z_dim == Z_DIM
    assert GENERATOR.image_resolution == DISCRIMINATOR.image_resolution == 64
