"""Tests of the mini diffusion model, at sizes that run in seconds."""

import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from dreamportrait.guidance.sampling import decode, sample, sample_latents
from dreamportrait.mini.diffusion import unet as unet_module
from dreamportrait.mini.diffusion import vae as vae_module
from dreamportrait.mini.diffusion.evaluation import (
    Retrieval,
    psnr,
    reconstruction_sheet,
    retrieval,
    sample_sheet,
    score_samples,
    score_vae,
)
from dreamportrait.mini.diffusion.folder import load_diffusion, load_vae, make_scheduler, save_unet, save_vae
from dreamportrait.mini.diffusion.unet import CAPTIONS, Examples, make_unet, train_unet, unet_loss
from dreamportrait.mini.diffusion.vae import encode, encode_all, fold_statistics, make_vae, to_signed, train_vae
from dreamportrait.miniworld.attributes import Z_DIM
from dreamportrait.miniworld.world import World
from dreamportrait.training import loop

WIDTH, LENGTH = 8, 5
SMALL = (8, 16)


def embed(prompts: list[str]) -> Tensor:
    """Return features that depend on the prompt alone, in place of a text tower."""
    seeds = [sum(prompt.encode()) for prompt in prompts]
    return torch.stack([torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(s)) for s in seeds])


@pytest.fixture
def world() -> World:
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (12, 3, 1, 1)) // 2 + rng.integers(0, 128, (12, 3, 64, 64))
    codes = rng.standard_normal((12, Z_DIM)).astype(np.float32)
    depth, cameras = np.zeros((12, 64, 64), np.float16), np.zeros((12, 25), np.float32)
    return World("train", plain.astype(np.uint8), depth, codes, cameras)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_vae(make_vae((2, 4, 6)), tmp_path)
    save_unet(make_unet(WIDTH, SMALL), tmp_path)
    return tmp_path


def test_the_weights_have_the_permissions_that_the_umask_allows(folder: Path) -> None:
    written = {path.relative_to(folder): stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*/*")}
    assert len(written) == 5 and len(set(written.values())) == 1, written  # the JSON files have them anyway


# The VAE.


def test_a_folder_does_not_name_the_one_that_it_was_read_from(folder: Path, tmp_path: Path) -> None:
    unet, vae, _ = load_diffusion(folder)
    save_vae(vae, tmp_path)
    save_unet(unet, tmp_path)
    for part in ("unet", "vae"):
        text = (tmp_path / part / "config.json").read_text()
        assert "_class_name" in text and str(folder) not in text


def test_encode_and_decode_have_the_right_shapes_and_encode_has_a_gradient() -> None:
    vae = make_vae((2, 4, 6)).requires_grad_(False)
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    latents = encode(vae, images)
    assert latents.shape == (2, 4, 16, 16)
    assert decode(vae, latents).shape == images.shape
    latents.square().sum().backward()
    assert images.grad is not None and images.grad.abs().max() > 0


def test_folding_normalises_the_latents_and_keeps_posterior_and_reconstructions(world: World) -> None:
    torch.manual_seed(0)
    vae = make_vae((2, 4, 6)).requires_grad_(False)
    convolution: Any = vae.quant_conv
    convolution.weight.mul_(3)
    convolution.bias.add_(0.7)
    images = to_signed(world.images)
    before, made = vae.encode(images).latent_dist, decode(vae, encode(vae, images))
    fold_statistics(vae, world.images)
    latents = encode(vae, images)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(decode(vae, latents), made, atol=1e-4, rtol=1e-4)
    scale = before.mean.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(vae.encode(images).latent_dist.std * scale, before.std, rtol=1e-2, atol=1e-5)


def test_encode_all_mirrors(world: World) -> None:
    vae = make_vae((2, 4, 6))
    mirrored = World(world.split, world.images[..., ::-1], world.depth, world.codes, world.cameras)
    expected = encode_all(vae, mirrored.images, batch=5)
    assert torch.equal(encode_all(vae, world.images, batch=5, flip=True), expected)
    assert not torch.equal(encode_all(vae, world.images), expected)


@pytest.mark.lengthy
def test_a_stopped_vae_training_continues_exactly(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(name: str, steps: int = 6) -> dict[str, Tensor]:
        train_vae(tmp_path / name, tmp_path / f"work-{name}", world, steps=steps, batch=3, channels=(2, 4, 6))
        return load_vae(tmp_path / name).state_dict()

    whole = train("a")
    with monkeypatch.context() as patch:
        interrupt(patch, vae_module, saved=3)
        with pytest.raises(Stopped):
            train("b")
    continued = train("b")
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    assert any(not torch.equal(whole[name], value) for name, value in train("c", steps=5).items())


# The UNet.


def test_a_unet_that_predicts_zero_has_loss_one() -> None:
    unet = make_unet(WIDTH, SMALL)
    unet.conv_out.weight.data.zero_()
    unet.conv_out.bias.data.zero_()  # type: ignore[union-attr]
    loss = unet_loss(unet, torch.randn(16, 4, 16, 16), embed(["a"] * 16), make_scheduler().alphas_cumprod)
    assert abs(loss.item() - 1) < 0.05


def test_examples_pair_latents_with_words_and_drop_a_tenth() -> None:
    latents = np.arange(10.0, dtype=np.float16).reshape(2, 5, 1, 1, 1)  # numbers 5 and above are mirrored
    words = (10 + np.arange(10.0, dtype=np.float16)).reshape(5, 2, 1, 1)  # two captions of each face
    drawn, told = (x.flatten() for x in Examples(latents, words, torch.full((1, 1, 1), -1.0)).draw(4000))
    assert set(drawn.tolist()) == set(range(10))
    assert set(told.tolist()) == {-1, *range(10, 20)}
    assert torch.equal(drawn[told > 0] % 5, (told[told > 0] - 10) // 2)
    assert 0.07 < (told < 0).float().mean().item() < 0.13


@pytest.mark.lengthy
def test_examples_are_kept_for_the_same_weights_only(world: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    save_vae(make_vae((2, 4, 6)), tmp_path)
    first = Examples.of(world, tmp_path, embed, cache)
    vae = load_vae(tmp_path)
    assert np.array_equal(first.latents[0], encode_all(vae, world.images))
    expected = embed(world.captions(3)[:CAPTIONS]).half()
    assert torch.equal(torch.from_numpy(np.array(first.words[3])), expected)
    Examples.of(world, tmp_path, embed, cache)
    assert len(list(cache.iterdir())) == 2
    save_vae(make_vae((2, 4, 6)), tmp_path)
    second = Examples.of(world, tmp_path, embed, cache)
    assert not np.array_equal(first.latents, second.latents)


@pytest.mark.lengthy
def test_a_stopped_unet_training_continues_exactly(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_vae(make_vae((2, 4, 6)), tmp_path)

    def train(name: str, steps: int = 4) -> dict[str, Tensor]:
        train_unet(tmp_path, tmp_path / name, world, embed, steps=steps, batch=3, channels=SMALL)
        return load_diffusion(tmp_path)[0].state_dict()

    whole = train("a")
    with monkeypatch.context() as patch:
        interrupt(patch, unet_module, saved=2)
        with pytest.raises(Stopped):
            train("b")
    continued = train("b")
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    assert any(not torch.equal(whole[name], value) for name, value in train("c", steps=3).items())


# Sampling.


class Oracle(torch.nn.Module):
    """A denoiser that knows the clean latents and returns the remaining noise."""

    def __init__(self, clean: Tensor, told: Tensor) -> None:
        super().__init__()
        self.clean, self.told = clean, told  # without and with text
        self.config = {"sample_size": 16, "in_channels": 4}
        self.signal = make_scheduler().alphas_cumprod

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> object:
        a = self.signal[t]
        known = words.abs().sum((1, 2)) > 0
        clean = torch.where(known[:, None, None, None], self.told, self.clean)
        return type("Out", (), {"sample": (x - a.sqrt() * clean) / (1 - a).sqrt()})


@pytest.mark.parametrize(("guidance_scale", "expected"), [(1.0, 2.0), (3.0, 4.0)])
def test_an_oracle_is_sampled_back(guidance_scale: float, expected: float) -> None:
    """Sampling must return the clean latents; guidance extrapolates from both predictions: 1 + scale * (2 - 1)."""
    pattern = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    oracle = Oracle(pattern, 2 * pattern)
    words, null = torch.ones(2, LENGTH, WIDTH), torch.zeros(1, LENGTH, WIDTH)
    found = sample_latents(oracle, make_scheduler(), words, null, guidance_scale=guidance_scale, steps=10)  # type: ignore[arg-type]
    torch.testing.assert_close(found, (expected * pattern).expand(2, -1, -1, -1), atol=1e-3, rtol=1e-3)


@pytest.mark.lengthy
def test_samples_follow_seed_text_and_scale_alone(folder: Path) -> None:
    parts = load_diffusion(folder)

    def make(prompts: list[str], seed: int = 0, scale: float = 3.0) -> Tensor:
        return sample(*parts, embed(prompts), embed([""]), guidance_scale=scale, steps=3, seed=seed)

    first = make(["red", "blue"])
    assert first.shape == (2, 3, 64, 64) and first.abs().max() <= 1
    assert torch.equal(first, make(["red", "blue"]))
    torch.testing.assert_close(make(["red"]), first[:1], atol=1e-4, rtol=1e-4)
    for other in (make(["red", "blue"], seed=1), make(["green", "blue"])[:1], make(["red", "blue"], scale=5.0)):
        assert (other - first[: len(other)]).abs().max() > 1e-4


def test_sampling_says_what_is_wrong(folder: Path) -> None:
    parts = load_diffusion(folder)
    with pytest.raises(ValueError, match=r"\[1, 3, 8\] and \[1, 5, 8\]"):
        sample(*parts, embed(["red"])[:, :3], embed([""]), guidance_scale=3)
    with pytest.raises(ValueError, match="steps=0"):
        sample(*parts, embed(["red"]), embed([""]), guidance_scale=3, steps=0)


# The folder.


def test_diffusers_itself_loads_the_folder(folder: Path) -> None:
    unet, vae, scheduler = load_diffusion(folder)
    ours = {"unet": unet.state_dict(), "vae": vae.state_dict()}
    theirs = {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict(),
        "vae": AutoencoderKL.from_pretrained(folder, subfolder="vae").state_dict(),
    }
    for part, weights in theirs.items():
        assert all(torch.equal(value.float(), ours[part][name]) for name, value in weights.items())
    assert DDIMScheduler.from_pretrained(folder, subfolder="scheduler").config == scheduler.config
    assert not unet.training and not any(p.requires_grad for p in unet.parameters())


@pytest.mark.lengthy
def test_its_pipeline_draws_the_same_pictures(folder: Path) -> None:
    """Stable Diffusion's own pipeline must draw the same pictures from the features of the prompts."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    words, null = embed(["red", "blue"]), embed([""])
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    theirs = pipe(
        prompt_embeds=words,
        negative_prompt_embeds=null.expand_as(words),
        latents=noise,
        guidance_scale=3.0,
        num_inference_steps=3,
        output_type="pt",
    ).images
    ours = sample(*load_diffusion(folder), words, null, guidance_scale=3.0, steps=3, seed=0)
    torch.testing.assert_close(theirs * 2 - 1, ours, atol=1e-4, rtol=1e-4)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vae.config\.json is not there; train the stages in order"):
        load_vae(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"unet.config\.json"):
        load_diffusion(tmp_path)


# Scores.


class Judge:
    """A judge whose features are the brightness of a picture and the number in a caption."""

    def image_features(self, images: Tensor) -> Tensor:
        return torch.eye(100)[(images.mean((1, 2, 3)) * 100).round().long()]

    def text_features(self, prompts: list[str]) -> Tensor:
        return torch.eye(100)[torch.tensor([int(prompt) for prompt in prompts])]


class Order:
    """A judge for which picture i always matches caption i."""

    def image_features(self, images: Tensor) -> Tensor:
        return torch.eye(100)[: len(images)]

    def text_features(self, prompts: list[str]) -> Tensor:
        return torch.eye(100)[: len(prompts)]


def test_retrieval_in_both_directions() -> None:
    order = list(range(100))
    pictures = (torch.tensor(order) / 100)[:, None, None, None].expand(-1, 3, 2, 2)
    judge: Any = Judge()
    captions = [str(i) for i in [1, 0, *order[2:]]]  # two captions are swapped
    assert retrieval(judge, pictures, captions) == Retrieval(0.98, 0.98)
    captions = [str(i) for i in [1, *order[1:]]]  # picture 0 ties with 100 captions, picture 1 with 2
    assert retrieval(judge, pictures, captions) == Retrieval(caption_to_image=0.99, image_to_caption=0.9851)


@pytest.mark.lengthy
def test_scores_of_the_whole_model(folder: Path, world: World) -> None:
    arrays = (world.images, world.depth, world.codes, world.cameras)
    many = World("test", *(np.concatenate([array] * 9)[:100] for array in arrays))
    unet, vae, scheduler = load_diffusion(folder)
    judge: Any = Order()
    scores = score_vae(vae, many, judge)
    assert scores.real == scores.reconstructed == Retrieval(1, 1)
    assert 0 < scores.psnr < 20
    drawn = score_samples(unet, vae, scheduler, embed, many, judge, guidance_scale=2, count=100, steps=1)
    assert drawn == Retrieval(1, 1)


def test_psnr() -> None:
    real = torch.zeros(2, 3, 4, 4)
    assert psnr(real + 0.2, real) == pytest.approx(20, abs=1e-3)


@pytest.mark.lengthy
def test_sheets_are_written(folder: Path, world: World, tmp_path: Path) -> None:
    vae = load_vae(folder)
    reconstruction_sheet(vae, world, tmp_path / "new" / "vae.png", columns=4, pairs=3)
    sample_sheet(to_signed(world.images[:3]), ["a man in a red hat " * 5] * 3, tmp_path / "new" / "unet.png")
    assert (tmp_path / "new" / "vae.png").stat().st_size > 0 and (tmp_path / "new" / "unet.png").stat().st_size > 0


class Stopped(Exception):
    pass


def interrupt(monkeypatch: pytest.MonkeyPatch, module: ModuleType, saved: int) -> None:
    """Make trainings of a module raise Stopped one step after they save their state at step `saved`."""

    def stop(done: int) -> None:
        raise Stopped

    def fit(*args: Any, **options: Any) -> None:
        loop.fit(*args, **options, save_every=saved, every={saved + 1: stop})

    monkeypatch.setattr(module, "fit", fit)
