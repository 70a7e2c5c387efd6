"""Tests of the pipeline from prompts to portraits, on a tiny model."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipeline import write_portrait

from dreamportrait.core.errors import WeightsError
from dreamportrait.export.portraits import Portrait, Portraits
from dreamportrait.geometry.cameras import FOV, camera_label, intrinsics_from_fov, official_pose, orbit
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

PROMPTS = ["a woman with red hair", "an old man wearing a blue hat and glasses, on a white background", ""]
# Batches of different sizes are summed in different orders.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_portrait(tmp_path_factory.mktemp("models") / "portrait")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> DreamPortraitPipeline:
    return DreamPortraitPipeline.from_pretrained(folder)


@pytest.fixture
def passes(pipe: DreamPortraitPipeline) -> Iterator[list[int]]:
    """Record the batch size of each pass of the backbone."""
    found: list[int] = []
    backbone = pipe.generator.generator.backbone.synthesis
    handle = backbone.register_forward_hook(lambda module, inputs, output: found.append(len(output)))
    yield found
    handle.remove()


# Results.


def test_a_text_gives_a_portrait(pipe: DreamPortraitPipeline) -> None:
    portrait = pipe(PROMPTS[0], seed=3, num_views=5)
    assert isinstance(portrait, Portrait) and (portrait.prompt, portrait.seed) == (PROMPTS[0], 3)
    assert portrait.images.shape == (5, 16, 16, 3) and portrait.images.dtype == np.uint8
    assert portrait.colors.shape == (5, 3, 16, 16) and portrait.colors.dtype == torch.float32
    assert portrait.depth.shape == portrait.views.opacity.shape == (5, 1, 8, 8)
    assert [np.array_equal(p, i) for p, i in zip(portrait.pictures, portrait.images, strict=True)] == [True] * 5
    assert portrait.planes.shape == (3, 4, 16, 16) and portrait.ws.shape == (pipe.generator.num_ws, 16)
    assert repr(portrait) == f"Portrait({PROMPTS[0]!r}, seed=3, 5 views)"
    shown = (portrait.colors * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(portrait.images, shown)


def test_a_list_gives_portraits(pipe: DreamPortraitPipeline) -> None:
    portraits = pipe(PROMPTS, num_views=2)
    assert isinstance(portraits, Portraits) and [portrait.prompt for portrait in portraits] == PROMPTS
    assert portraits.images.shape == (3, 2, 16, 16, 3)
    assert portraits.colors.shape == (3, 2, 3, 16, 16) and portraits.depth.shape == (3, 2, 1, 8, 8)
    assert isinstance(portraits[1:], Portraits) and list(portraits[1:]) == list(portraits)[1:]
    assert isinstance(pipe(PROMPTS[:1]), Portraits) and isinstance(pipe(tuple(PROMPTS)), Portraits)


def test_it_is_what_the_generator_makes_of_text_and_seed(pipe: DreamPortraitPipeline) -> None:
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(7))
    front = camera_label(official_pose(), intrinsics_from_fov(FOV))
    text = pipe.encoder.encode([PROMPTS[1]])
    with torch.no_grad():
        expected = pipe.generator(z, front, text, truncation_psi=0.5)
    portrait = pipe(PROMPTS[1], seed=7, truncation=0.5)
    torch.testing.assert_close(portrait.colors, expected.image, **CLOSE)
    torch.testing.assert_close(portrait.depth, expected.depth, **CLOSE)


@pytest.mark.parametrize("seeds", [4, [4, 5, 6]])
def test_neighbours_do_not_matter(pipe: DreamPortraitPipeline, seeds: int | list[int]) -> None:
    together = pipe(PROMPTS, seeds, num_views=2)
    own = [seeds] * 3 if isinstance(seeds, int) else seeds
    for portrait, prompt, seed in zip(together, PROMPTS, own, strict=True):
        alone = pipe(prompt, seed, num_views=2)
        torch.testing.assert_close(portrait.colors, alone.colors, **CLOSE)
        torch.testing.assert_close(portrait.planes, alone.planes, **CLOSE)
        assert torch.equal(alone.colors, pipe(prompt, seed, num_views=2).colors)


def test_prompt_and_seed_matter(pipe: DreamPortraitPipeline) -> None:
    a, b, c = pipe([PROMPTS[0], PROMPTS[1], PROMPTS[0]], [0, 0, 1])
    assert (a.planes - b.planes).abs().mean() > 0.01 and (a.planes - c.planes).abs().mean() > 0.01


def test_truncation_draws_to_the_average(pipe: DreamPortraitPipeline) -> None:
    one, other = pipe(PROMPTS[:1] * 2, [0, 1], truncation=0.0)
    torch.testing.assert_close(one.planes, other.planes, **CLOSE)
    one, other = pipe(PROMPTS[:1] * 2, [0, 1], truncation=0.7)
    assert (one.planes - other.planes).abs().mean() > 0.01


# Views.


def test_views_are_spread_over_the_range(pipe: DreamPortraitPipeline) -> None:
    portrait = pipe(PROMPTS[0], num_views=3, yaw_range=(-30, 10))
    torch.testing.assert_close(portrait.views.cameras, orbit([-30, -10, 10], 0, 2.7, (0, 0, 0)))
    torch.testing.assert_close(pipe(PROMPTS[0]).views.cameras, orbit([0], 0, 2.7, (0, 0, 0)))
    for i, yaw in enumerate([-30.0, -10.0, 10.0]):
        torch.testing.assert_close(portrait.view(yaw).colors[0], portrait.colors[i], **CLOSE)


def test_angles() -> None:
    positions = torch.cat([orbit([0, 90, -90], 0, 2, (0, 0, 0)), orbit([0], 30, 2, (0, 0, 0))])[:, [3, 7, 11]]
    # In front; then to the right, to the left and above, as seen by the viewer.
    expected = [[0, 0, 2], [2, 0, 0], [-2, 0, 0], [0, 1, 3**0.5]]
    torch.testing.assert_close(positions, torch.tensor(expected), rtol=0, atol=1e-5)


def test_cameras(pipe: DreamPortraitPipeline) -> None:
    labels = orbit([-20, 20], 10, 2.5, (0, 0, 0))
    portrait = pipe(PROMPTS[0], cameras=labels)
    assert len(portrait.images) == 2
    for given in (labels.numpy(), labels.tolist(), [list(map(float, row)) for row in labels]):
        assert torch.equal(portrait.render(given).colors, portrait.colors)
    torch.testing.assert_close(portrait.render(labels[1].tolist()).colors, portrait.colors[1:], **CLOSE)


def test_further_views_do_not_run_the_backbone(pipe: DreamPortraitPipeline, passes: list[int]) -> None:
    portraits = pipe(PROMPTS, num_views=4)
    assert passes == [3]
    turned = portraits[1].view(yaw=40, pitch=-10)
    assert turned.images.shape == (1, 16, 16, 3) and turned.depth.shape == (1, 1, 8, 8)
    assert portraits[1].view(resolution=12).depth.shape == (1, 1, 12, 12)
    assert passes == [3] and not turned.colors.requires_grad


# Side effects and saving.


def test_an_unseen_prompt_changes_nothing(pipe: DreamPortraitPipeline) -> None:
    tower = pipe.encoder.tower.parts
    before = {name: value.clone() for name, value in (pipe.generator.state_dict() | tower.state_dict()).items()}
    state = torch.get_rng_state()
    pipe(["a sentence that nobody has seen, with \N{GRINNING FACE} and 红头发的女人"], truncation=0.5, num_views=2)
    after = pipe.generator.state_dict() | tower.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    everything = [*pipe.generator.parameters(), *tower.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in everything)
    assert torch.equal(torch.get_rng_state(), state)


def test_saved_and_read_again(pipe: DreamPortraitPipeline, folder: Path, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path / "copy")
    again = DreamPortraitPipeline.from_pretrained(str(tmp_path / "copy"))
    assert torch.equal(again(PROMPTS[0], seed=1).colors, pipe(PROMPTS[0], seed=1).colors)
    first, second = (json.loads((path / "config.json").read_text()) for path in (folder, tmp_path / "copy"))
    assert first == second
    with pytest.raises(WeightsError, match="not empty"):
        pipe.save_pretrained(tmp_path / "copy")
    pipe.save_pretrained(tmp_path / "copy", overwrite=True)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"prompt": []}, ValueError, "empty list"),
        ({"prompt": 3}, TypeError, "text or a list of texts, got 3"),
        ({"prompt": ["a", None]}, TypeError, "text or a list of texts"),
        ({"prompt": ["a", "b"], "seed": [1, 2, 3]}, ValueError, "3 seeds for 2 prompts"),
        ({"prompt": "a", "seed": [1, 2]}, ValueError, "2 seeds for 1 prompts"),
        ({"prompt": "a", "seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"prompt": "a", "seed": 1.5}, TypeError, "seed must be an int, got 1.5"),
        ({"prompt": "a", "seed": 2**63}, ValueError, "less than 2"),
        ({"prompt": "a", "num_views": 0}, ValueError, "num_views must be at least 1, got 0"),
        ({"prompt": "a", "num_views": 2.0}, TypeError, "num_views must be an int"),
        ({"prompt": "a", "truncation": 1.5}, ValueError, "truncation=1.5"),
        ({"prompt": "a", "truncation": -0.1}, ValueError, "truncation=-0.1"),
        ({"prompt": "a", "truncation": "x"}, TypeError, "truncation must be a number"),
        ({"prompt": "a", "yaw_range": 20}, TypeError, "two angles"),
        ({"prompt": "a", "yaw_range": (0, float("nan"))}, ValueError, "yaw_range must be finite"),
        ({"prompt": "a", "num_views": 2, "cameras": [0.0] * 25}, ValueError, "choose one"),
        ({"prompt": "a", "cameras": [0.0] * 25}, ValueError, "camera 0 of 1"),
        ({"prompt": "a", "cameras": [0.0] * 24}, ValueError, "25 numbers"),
        ({"prompt": "a", "cameras": []}, ValueError, "at least one row|25 numbers"),
        ({"prompt": "a", "cameras": [[1.0], [1.0, 2.0]]}, TypeError, "labels of 25 numbers"),
        ({"prompt": "a", "cameras": "front"}, TypeError, "labels of 25 numbers"),
    ],
)
def test_wrong_arguments(
    pipe: DreamPortraitPipeline, passes: list[int], arguments: dict, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        pipe(**arguments)
    assert passes == []


def test_wrong_angles(pipe: DreamPortraitPipeline) -> None:
    portrait = pipe("a")
    with pytest.raises(ValueError, match="pitch=90: must lie between -90 and 90"):
        portrait.view(pitch=90)
    with pytest.raises(TypeError, match="yaw must be a number, got 'left'"):
        portrait.view("left")  # type: ignore[arg-type]


# Names of models.


def test_mini_comes_with_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dreamportrait.weights.registry.resources.files", lambda name: tmp_path / name)
    with pytest.raises(
        WeightsError, match=r"'mini' are not in this installation.*mini/weights/portrait.*dreamportrait train"
    ):
        DreamPortraitPipeline.from_pretrained("mini")
    write_portrait(tmp_path / "dreamportrait/mini/weights/portrait")
    assert DreamPortraitPipeline.from_pretrained("mini")("a man").images.shape == (1, 16, 16, 3)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="'maxi': it is neither 'mini' nor a folder"):
        locate_portrait("maxi")
    with pytest.raises(WeightsError, match="config.json is not there"):
        DreamPortraitPipeline.from_pretrained(tmp_path)


def test_a_text_encoder_of_another_width(tmp_path: Path) -> None:
    folder = write_portrait(tmp_path / "portrait", text_width=12)
    with pytest.raises(ValueError, match="features of 8 channels, but the generator was equipped for 12"):
        DreamPortraitPipeline.from_pretrained(folder)


def test_a_text_encoder_that_is_gone(tmp_path: Path) -> None:
    folder = write_portrait(tmp_path / "portrait")
    (tmp_path / "CLIP").rename(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match=r"CLIP '.*CLIP' is no folder"):
        DreamPortraitPipeline.from_pretrained(folder)


# Habits of diffusers.


def test_a_torch_generator_draws_the_identities(pipe: DreamPortraitPipeline) -> None:
    one = pipe(PROMPTS[0], generator=torch.Generator().manual_seed(7))
    assert one.seed is None and torch.equal(one.colors, pipe(PROMPTS[0], seed=7).colors)
    numbers = torch.Generator().manual_seed(7)
    first, second = pipe(PROMPTS[:1] * 2, generator=numbers)
    assert (first.planes - second.planes).abs().mean() > 0.01  # drawn one after the other
    both = pipe(PROMPTS[:2], generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)])
    for portrait, other in zip(both, pipe(PROMPTS[:2], seed=[3, 4]), strict=True):
        torch.testing.assert_close(portrait.colors, other.colors, **CLOSE)


def test_wrong_generators(pipe: DreamPortraitPipeline) -> None:
    with pytest.raises(ValueError, match="seed=3 and generator are given; choose one"):
        pipe(PROMPTS[0], seed=3, generator=torch.Generator())
    with pytest.raises(ValueError, match="give one torch.Generator, or a list of 2"):
        pipe(PROMPTS[:2], generator=[torch.Generator()])


def test_to_another_type_and_back(folder: Path) -> None:
    pipe = DreamPortraitPipeline.from_pretrained(folder)
    before = pipe(PROMPTS[0], seed=1).colors
    assert pipe.to("cpu", torch.bfloat16) is pipe and pipe.dtype == torch.bfloat16
    assert pipe.generator.config.precision == "bfloat16" and pipe.device == torch.device("cpu")
    assert {p.dtype for p in pipe.generator.parameters()} == {torch.float32}
    whole = DreamPortraitPipeline.from_pretrained(folder, precision="bfloat16")
    assert torch.equal(pipe(PROMPTS[0], seed=1).colors, whole(PROMPTS[0], seed=1).colors)
    assert torch.equal(pipe.to(torch.float32)(PROMPTS[0], seed=1).colors, before)
    with pytest.raises(ValueError, match=r"dtype=torch.int8: must be one of torch.float32, torch.float16"):
        pipe.to(dtype=torch.int8)


def test_batches_are_made_in_turn(pipe: DreamPortraitPipeline, passes: list[int]) -> None:
    together = pipe(PROMPTS, [1, 2, 3], batch_size=2)
    assert passes == [2, 1]
    for portrait, whole in zip(together, pipe(PROMPTS, [1, 2, 3]), strict=True):
        torch.testing.assert_close(portrait.colors, whole.colors, **CLOSE)


def test_progress_is_shown_and_turned_off(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = DreamPortraitPipeline.from_pretrained(folder)
    pipe(PROMPTS)
    assert not capsys.readouterr().err  # not a terminal
    pipe.set_progress_bar_config(disable=False)
    pipe(PROMPTS)
    assert "0/3" in capsys.readouterr().err
    pipe.set_progress_bar_config(disable=True)
    pipe(PROMPTS)
    assert not capsys.readouterr().err


def test_it_describes_itself(pipe: DreamPortraitPipeline) -> None:
    assert re.fullmatch(
        r"DreamPortraitPipeline\(\n  generator: 16 x 16, [\d.]+ M parameters\n  trained from: .*\n"
        r"  text: .*CLIP, through mapper, adapter at 4, adapter at 8\n  device: cpu, float32\n  licence: .*\n\)",
        repr(pipe),
    ), repr(pipe)


def test_public_names() -> None:
    import dreamportrait
    from dreamportrait import eg3d

    assert dreamportrait.DreamPortraitPipeline is DreamPortraitPipeline
    for name in ("generator_from_official", "discriminator_from_official", "load_generator", "load_discriminator"):
        assert callable(getattr(eg3d, name))
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        _ = dreamportrait.Pipeline
