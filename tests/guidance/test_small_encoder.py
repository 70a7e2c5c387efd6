"""Tests of small encoders: their place in the diffusion model, training, the comparison of gradients."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusion_folders import write_mini
from torch import Tensor

from dreamportrait.core.config import Guidance
from dreamportrait.core.errors import WeightsError
from dreamportrait.guidance.guides import DiffusionGuide
from dreamportrait.guidance.small_encoder import FILES, agreement, distil, make_small_encoder, save_small_encoder
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion
from dreamportrait.mini.diffusion.folder import make_scheduler, save_vae
from dreamportrait.mini.diffusion.unet import make_unet
from dreamportrait.mini.diffusion.vae import make_vae

WIDTH = 16


@pytest.fixture
def prior() -> StableDiffusion:
    torch.manual_seed(0)
    unet, schedule = make_unet(WIDTH, (8, 16)), make_scheduler().alphas_cumprod
    return StableDiffusion(
        unet, make_vae((2, 4, 6)), schedule, "epsilon", lambda prompts: torch.zeros(len(prompts), 3, WIDTH)
    )


def pictures(size: int) -> Iterator[Tensor]:
    numbers = torch.Generator().manual_seed(1)
    while True:
        yield torch.rand(4, 3, size, size, generator=numbers) * 2 - 1


def test_it_takes_the_place_of_the_vae(tmp_path: Path) -> None:
    write_mini(tmp_path / "diffusion")
    plain = load_stable_diffusion(str(tmp_path / "diffusion"), text=FakeText())
    small = make_small_encoder(plain, 4).eval()
    save_small_encoder(small, tmp_path / "small")
    found = load_stable_diffusion(str(tmp_path / "diffusion"), text=FakeText(), encoder=tmp_path / "small")
    images = next(pictures(plain.image_size))
    assert found.image_size == plain.image_size
    assert torch.equal(found.encode(images), small.encode(images).latents)
    assert found.encode(images).shape == plain.encode(images).shape


class FakeText:
    """Stands for a text encoder, which these tests do not ask."""

    def encode(self, prompts: list[str], shorten: bool = True) -> None:
        raise AssertionError("no text is encoded here")

    class tower:
        width = WIDTH


def test_taesd_as_it_is_given_out(tmp_path: Path) -> None:
    """TAESD's folder: config.json with all settings of the original, and weights of its 1.2 million in one file."""
    torch.manual_seed(0)
    taesd = AutoencoderTiny()  # the defaults are those of the published model, with four stages for 8 x 8 pixels
    taesd.save_pretrained(tmp_path / "taesd")
    assert {path.name for path in (tmp_path / "taesd").iterdir()} == set(FILES)
    kept = json.loads((tmp_path / "taesd" / "config.json").read_text())
    assert kept["_class_name"] == "AutoencoderTiny" and kept["latent_channels"] == 4 and kept["scaling_factor"] == 1.0
    count = sum(p.numel() for p in taesd.encoder.parameters())
    assert count == 1_222_532  # "1.22 million"
    write_mini(tmp_path / "diffusion")
    save_vae(make_vae((2, 4, 6, 6)), tmp_path / "diffusion")  # four stages, as Stable Diffusion's
    found = load_stable_diffusion(
        str(tmp_path / "diffusion"), text=FakeText(), encoder=tmp_path / "taesd", precision="float16"
    )
    assert found.image_size == 8 * found.latent_shape[1]
    assert next(found.vae.parameters()).dtype == torch.float32  # gradients would overflow in float16
    image = next(pictures(found.image_size))[:1].requires_grad_()
    latents = found.encode(image)
    assert torch.equal(latents, taesd.eval().encode(image).latents)  # no further scale: TAESD has it inside
    latents.square().sum().backward()
    assert image.grad is not None and image.grad.abs().max() > 0


def test_a_folder_without_an_encoder(tmp_path: Path) -> None:
    write_mini(tmp_path / "diffusion")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_stable_diffusion(str(tmp_path / "diffusion"), text=FakeText(), encoder=tmp_path)


@pytest.mark.lengthy
def test_training_brings_latents_and_jacobian_nearer(prior: StableDiffusion) -> None:
    torch.manual_seed(2)
    small, losses = make_small_encoder(prior, 8), []
    guide = DiffusionGuide(prior, Guidance(scale=2.0))
    given = next(pictures(prior.image_size)), [""] * 4, torch.zeros(4, 25)
    before = agreement(guide, small, *given)
    distil(small, prior, pictures(prior.image_size), 60, report=lambda step, loss: losses.append(loss))
    after = agreement(guide, small, *given)
    assert after.latents < 0.7 * before.latents
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10]) and len(losses) == 60


def test_an_encoder_agrees_with_itself(prior: StableDiffusion) -> None:
    """If the diffusion model uses the small encoder itself, gradients are the same."""
    small = make_small_encoder(prior, 4).eval()
    own = StableDiffusion(prior.unet, small, prior.alphas_cumprod, "epsilon", prior.embed)
    guide = DiffusionGuide(own, Guidance(scale=2.0))
    found = agreement(guide, small, next(pictures(own.image_size)), [""] * 4, torch.zeros(4, 25))
    assert found.cosine == pytest.approx(1, abs=1e-5) and found.length == pytest.approx(1, abs=1e-5)
    assert found.latents == 0
