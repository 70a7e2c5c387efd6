"""Tests of the adapter around diffusers: predicting, encoding, half precision, loading."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusion_folders import WIDTH, change_json, write_own
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dreamportrait.core.tensor_memory import TensorMemory
from dreamportrait.guidance.distillation import d_sds_loss, draw
from dreamportrait.guidance.stable_diffusion import StableDiffusion, load_stable_diffusion
from dreamportrait.mini.diffusion.folder import make_scheduler
from dreamportrait.mini.diffusion.unet import make_unet
from dreamportrait.mini.diffusion.vae import make_vae
from dreamportrait.weights.diffusion import LayoutError

SCHEDULE = make_scheduler().alphas_cumprod
PROMPTS = ["a woman with red hair", "an old man with a hat"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own(tmp_path_factory.mktemp("own"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "folder")


def words(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, WIDTH, generator=torch.Generator().manual_seed(seed))


def tiny(unet: Any = None, vae: Any = None, prediction: str = "epsilon", **options: Any) -> StableDiffusion:
    torch.manual_seed(0)
    vae = vae or make_vae((4, 6, 8))
    return StableDiffusion(unet or make_unet(WIDTH, (8, 16)), vae, SCHEDULE, prediction, lambda p: words(2), **options)


class Stub(nn.Module):
    """A stand-in for a UNet whose output is a function of noisy latents, steps and words."""

    config = make_unet(WIDTH, (8, 16)).config
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.calls = function, 0
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Any:
        self.calls += 1
        return SimpleNamespace(sample=self.gain * self.function(x, t, words))


# Predict.


@pytest.fixture
def noisy() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {"noisy": torch.randn(3, 4, 16, 16), "t": torch.tensor([0, 400, 999]), "words": words(3)}


def test_the_guidance_scale_means_null_plus_scale_times_the_difference(noisy: dict[str, Tensor]) -> None:
    prior, null = tiny(), words(1, seed=1)
    told = prior.unet(noisy["noisy"], noisy["t"], noisy["words"]).sample
    free = prior.unet(noisy["noisy"], noisy["t"], null.expand(3, -1, -1)).sample
    assert (told - free).abs().max() > 1e-3
    for scale, expected in ((0, free), (1, told), (7.5, free + 7.5 * (told - free)), (-1, 2 * free - told)):
        found = prior.predict(**noisy, null_words=null, guidance_scale=scale)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        each = prior.predict(**noisy, null_words=null.expand(3, -1, -1), guidance_scale=scale)
        assert torch.equal(each, found)


def test_without_guidance_the_unet_sees_each_sample_once(noisy: dict[str, Tensor]) -> None:
    seen: list[int] = []

    def count(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        assert len(x) == len(t) == len(words)
        seen.append(len(x))
        return x

    prior = tiny(Stub(count))
    for scale in (0, 1, 2):
        prior.predict(**noisy, null_words=words(1), guidance_scale=scale)
    assert seen == [3, 3, 6]


def test_v_prediction_is_the_same_noise(noisy: dict[str, Tensor]) -> None:
    """Predicting v = sqrt(a) noise - sqrt(1 - a) picture gives the same noise as predicting the noise itself."""

    def says_noise(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        return torch.sin(x + t[:, None, None, None] / 100) * words.mean((1, 2))[:, None, None, None]

    def says_v(x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        a = SCHEDULE[t][:, None, None, None]
        noise = says_noise(x, t, words)
        picture = (x - (1 - a).sqrt() * noise) / a.sqrt()
        return a.sqrt() * noise - (1 - a).sqrt() * picture

    for scale in (0, 1, 5):
        first, second = (
            tiny(Stub(says), prediction=kind).predict(**noisy, null_words=words(1, 1), guidance_scale=scale)
            for says, kind in ((says_noise, "epsilon"), (says_v, "v_prediction"))
        )
        torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-4)


def test_the_unet_is_frozen_and_gives_no_gradient(noisy: dict[str, Tensor]) -> None:
    stub = Stub(lambda x, t, words: x * words.mean())
    prior = tiny(stub)
    noisy["noisy"].requires_grad_()
    out = prior.predict(**noisy, null_words=words(1), guidance_scale=3)
    assert not out.requires_grad and not stub.gain.requires_grad
    assert not any(weight.requires_grad for net in (tiny().unet, tiny().vae) for weight in net.parameters())


def test_a_module_that_holds_it_does_not_own_its_weights() -> None:
    module = nn.Module()
    module.prior = tiny()
    assert not list(module.parameters()) and not module.state_dict()


def test_predict_says_what_does_not_fit(noisy: dict[str, Tensor]) -> None:
    prior, null = tiny(), words(1)
    for wrong, message in (
        ({"null_words": null[:, :4]}, r"null_words must have shape \[3, 5, 16\] \(as words; embed both alike\)"),
        ({"words": words(2)}, r"words must have shape \[3, 5, 16\]"),
        ({"words": words(3)[..., :8]}, r"words must have shape \[3, 5, 16\]"),
        ({"t": torch.tensor([4])}, r"t must have shape \[3\] \(one step for each sample\)"),
        ({"noisy": torch.randn(3, 4, 8, 8)}, r"noisy must have shape \[3, 4, 16, 16\]"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            prior.predict(**{**noisy, "null_words": null, "guidance_scale": 2, **wrong})


# Encode.


def test_encode_is_the_scaled_mean_and_keeps_the_encoders_jacobian() -> None:
    vae = make_vae((4, 6, 8))
    vae.register_to_config(scaling_factor=0.5)
    prior = tiny(vae=vae)
    images = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    latents = prior.encode(images)
    expected = vae.encode(images).latent_dist.mean / 2
    assert latents.shape == (2, *prior.latent_shape) and torch.equal(latents, expected)
    g = torch.randn_like(latents)
    (found,) = torch.autograd.grad(latents, images, g, retain_graph=True)
    assert torch.equal(found, torch.autograd.grad(expected, images, g)[0])
    direction = torch.randn_like(images)
    with torch.no_grad():
        moved = prior.encode(images + 1e-3 * direction) - prior.encode(images - 1e-3 * direction)
    torch.testing.assert_close((found * direction).sum(), (g * moved).sum() / 2e-3, rtol=1e-2, atol=0)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_any_size_is_encoded_at_the_priors_own(size: int) -> None:
    prior = tiny()
    assert prior.image_size == 64
    plain = torch.tensor([0.5, -0.2, 0.1])[None, :, None, None]
    images = plain.expand(1, 3, size, size).clone().requires_grad_()
    latents = prior.encode(images)
    torch.testing.assert_close(latents, prior.encode(plain.expand(1, 3, 64, 64)), rtol=1e-4, atol=1e-5)
    latents.square().sum().backward()
    assert images.grad is not None and images.grad.abs().min() > 0
    with pytest.raises(ValueError, match=r"images \[1, 3, \d+, 16\]: must be \[N, 3, R, R\]"):
        prior.encode(images[..., :16])


def test_recomputing_changes_no_gradient() -> None:
    images = torch.rand(2, 3, 64, 64)

    def run(checkpoint: bool) -> tuple[Tensor, Tensor]:
        x = images.clone().requires_grad_()
        latents = tiny(checkpoint=checkpoint).encode(x)
        latents.square().sum().backward()
        assert x.grad is not None
        return latents, x.grad

    for first, second in zip(run(False), run(True), strict=True):
        assert torch.equal(first, second)


MIB = 2**20


@pytest.mark.parametrize(
    ("dtype", "checkpoint", "kept", "peak"),
    [
        (torch.float32, False, 3026, 3034),
        (torch.float32, True, 722, 1152),
        (torch.bfloat16, False, 1514, 1518),
        (torch.bfloat16, True, 362, 578),
    ],
)
@pytest.mark.lengthy
def test_memory_of_the_real_vae(dtype: torch.dtype, checkpoint: bool, kept: int, peak: int) -> None:
    """Check the memory in MiB for a picture of 512 x 512, without weights: kept for the backward pass, and the peak."""
    unet = make_unet(WIDTH, (8, 16))
    unet.register_to_config(sample_size=64)
    with FakeTensorMode():
        torch.set_default_dtype(dtype)
        try:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                sample_size=512,
            )
        finally:
            torch.set_default_dtype(torch.float32)
        assert sum(weight.numel() for weight in vae.parameters()) == 83_653_863
        prior = tiny(unet, vae, checkpoint=checkpoint)
        images = torch.randn(1, 3, 512, 512).requires_grad_()
        with TensorMemory() as memory:
            latents = prior.encode(images)
            found = memory.now
            latents.sum().backward()
    assert latents.shape == (1, 4, 64, 64) and images.grad is not None
    assert found / MIB == pytest.approx(kept, rel=0.05) and memory.peak / MIB == pytest.approx(peak, rel=0.05)


# Half precision.


def slope_of_loss(prior: StableDiffusion, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(3)
    images = (torch.rand(4, 3, 64, 64) * 2 - 1).requires_grad_()
    t, noise = draw(prior, 4, 0.02, 0.98)
    loss = d_sds_loss(
        prior, images.to(dtype), words(4), words(1, 1), t, noise, scale=5, weighting="sigma_squared", rescale=1.0
    )
    assert loss.dtype == torch.float32
    (slope,) = torch.autograd.grad(loss, images)
    return slope.flatten()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.lengthy
def test_half_precision_gives_nearly_the_same_gradient(folder: Path, precision: Any) -> None:
    exact = slope_of_loss(load_stable_diffusion(str(folder)))
    prior = load_stable_diffusion(str(folder), precision=precision)
    assert prior.unet.dtype == getattr(torch, precision)
    assert prior.vae.dtype == (torch.bfloat16 if precision == "bfloat16" else torch.float32)
    found = slope_of_loss(prior)
    assert torch.cosine_similarity(found, exact, dim=0) > 0.995
    assert 0.98 < found.norm() / exact.norm() < 1.02


def test_the_vae_does_not_overflow_where_float16_would() -> None:
    """Activations reach 1e6 inside, and the next normalisation rescales them, as in real encoders."""
    vae = make_vae((4, 6, 8))
    vae.encoder.conv_in.weight.data *= 1e6
    images = torch.rand(1, 3, 64, 64).requires_grad_()
    prior = tiny(vae=vae)
    with torch.autocast("cpu", torch.float16):
        naive = vae.encode(images).latent_dist.mode()
        safe = prior.encode(images)
    assert not naive.isfinite().all() and safe.isfinite().all()
    assert torch.autograd.grad(safe.sum(), images)[0].isfinite().all()
    assert torch.equal(safe, prior.encode(images))
    with pytest.raises(ValueError, match="the VAE is in float16, whose gradients overflow"):
        tiny(vae=make_vae((4, 6, 8)).half())


# Load.


@pytest.mark.lengthy
def test_a_folder_is_loaded_without_a_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    prior = load_stable_diffusion(str(folder), offline=True)
    assert prior.origin == str(folder) and prior.prediction == "epsilon"
    assert prior.latent_shape == (4, 16, 16) and prior.embed(PROMPTS).shape == (2, 77, WIDTH)
    torch.testing.assert_close(prior.alphas_cumprod, SCHEDULE)  # from another scheduler with the same noise
    assert not any(network.training for network in (prior.unet, prior.vae))


@pytest.mark.lengthy
def test_half_precision_files_are_cast(folder: Path, written: Path) -> None:
    for part in ("unet", "vae"):
        weights = folder / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert torch.equal(
        slope_of_loss(load_stable_diffusion(str(folder))), slope_of_loss(load_stable_diffusion(str(written)))
    )


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_an_error_and_not_random(folder: Path, part: str) -> None:
    path = folder / part / ("model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors")
    weights = load_file(path)
    name = sorted(weights)[3]
    weights["new"] = weights.pop(name)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(LayoutError, match=rf"{part} does not hold the weights .*missing_keys: \[.*{name}.*new"):
        load_stable_diffusion(str(folder))


def test_what_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="precision='fp8': must be one of float32, bfloat16, float16"):
        load_stable_diffusion(str(folder), precision="fp8")  # type: ignore[arg-type]
    change_json(folder / "vae" / "config.json", block_out_channels=[2, 4, 8])
    with pytest.raises(LayoutError, match="vae cannot be loaded"):
        load_stable_diffusion(str(folder))


def test_other_kinds_of_model_are_refused_with_all_reasons() -> None:
    unet, vae = make_unet(WIDTH, (8, 16)), make_vae((4, 6, 8))
    unet.register_to_config(in_channels=9, addition_embed_type="text_time")
    vae.register_to_config(shift_factor=0.1)
    message = (
        r"9 channels in and 4 out, the VAE's latents 4; models for inpainting .*"
        r"needs more than text \(addition_embed_type\).*shifts its latents \(shift_factor\).*prediction='sample'"
    )
    with pytest.raises(ValueError, match=message):
        StableDiffusion(unet, vae, SCHEDULE, "sample", lambda p: words(1))
