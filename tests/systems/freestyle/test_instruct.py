"""Tests of InstructPix2Pix at the border: what the networks are given, and how their predictions are combined."""

import pytest
import torch
from tiny_editing import SIZE, StubUNet, diffusion, editor, embed, stub_editor

from dreamportrait.guidance.sampling import sample
from dreamportrait.guidance.stable_diffusion import StableDiffusion
from dreamportrait.mini.diffusion.folder import make_scheduler, save_unet, save_vae
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling, load_instruct_pix2pix, with_picture
from dreamportrait.systems.freestyle.prompts import Instruction

TOLD = Instruction("an elf", "bad eyes")
NUMBERS = torch.Generator().manual_seed(5)
IMAGES = torch.rand(2, 3, 64, 64, generator=NUMBERS) * 2 - 1
LATENTS, PICTURED = torch.randn(2, 2, 4, SIZE, SIZE, generator=NUMBERS)
T = torch.tensor([10, 700])


@pytest.mark.parametrize(
    ("image_scale", "text_scale", "expected"),
    [(1, 1, 7), (1, 0, 3), (0, 0, 2), (1.5, 20, 2 + 1.5 * (3 - 2) + 20 * (7 - 3))],
)
def test_the_guidance_by_hand(image_scale, text_scale, expected):
    """Predictions are 2 without picture, 3 with it, 7 with picture and text. Scales of 1 give the last."""
    made = stub_editor(StubUNet(2, 3, 7))
    words, avoided = made.embed([TOLD.positive]), made.embed([TOLD.negative])
    scales = {"image_scale": image_scale, "text_scale": text_scale}
    found = made.predict(LATENTS, T, PICTURED, words, avoided, **scales)
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-6, atol=0)


def test_what_the_networks_are_given():
    """The UNet reads unscaled latents of the picture; sampling starts from scaled ones."""
    unet = StubUNet()
    made = stub_editor(unet)
    noise = made.fixed_noise(3)
    edited = made.edit(torch.zeros(2, 3, SIZE, SIZE), TOLD, noise, Sampling())
    x, t, words = unet.calls[0]
    assert t.tolist() == [899] * 6 and len(unet.calls) == 18
    none, seen, told = x[:, 4:].chunk(3)
    assert not none.any() and (seen == 2).all() and (told == 2).all()  # the mean of the posterior, as it is
    a = made.alphas_cumprod[899]
    started = a.sqrt() * 2 * 0.18215 + (1 - a).sqrt() * noise
    for part in x[:, :4].chunk(3):
        torch.testing.assert_close(part, started.expand(2, -1, -1, -1))
    assert [float(part.mean()) for part in words.chunk(3)] == [-1, -1, 1]
    # A prediction of 0 scales latents by sqrt(a' / a), from 899 to the end: they are started / sqrt(a).
    shown = (started / a.sqrt() / 0.18215).expand(2, -1, -1, -1)[:, :3]
    # 18 divisions in single precision
    torch.testing.assert_close(edited.images, shown.clamp(-1, 1), rtol=1e-4, atol=1e-4)
    assert edited.saturated.tolist() == pytest.approx((shown.abs() > 1).float().mean((1, 2, 3)).tolist(), abs=1e-3)


def test_a_fresh_editor_is_its_parent():
    parent, made = diffusion(), editor(fresh=True)
    words, avoided = embed(["an elf"]), embed(["bad"])
    for pictured in (PICTURED, torch.zeros_like(PICTURED)):
        found = made.predict(LATENTS, T, pictured, words, avoided, image_scale=1.5, text_scale=7.5)
        expected = parent.predict(LATENTS, T, words.expand(2, -1, -1), avoided, 7.5)
        # Zeros that are added to a convolution change the order of its sums.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_from_pure_noise_without_a_picture_it_is_text_to_image():
    """The loop over the steps gives what the scheduler of diffusers gives."""
    parent, made = diffusion(), editor(fresh=True)
    words, avoided = embed(["an elf"]), embed(["bad"])
    images = sample(parent.unet, parent.vae, make_scheduler(), words, avoided, guidance_scale=3.0, steps=5, seed=8)
    sampling = Sampling(steps=5, start=None, text_scale=3.0)
    edited = made.edit(torch.zeros(1, 3, 64, 64), Instruction("an elf", "bad"), made.fixed_noise(8), sampling)
    torch.testing.assert_close(edited.images, images, rtol=1e-4, atol=1e-4)  # sums in another order, five times


def test_a_trained_editor_reads_the_picture():
    made = editor()
    words, avoided = embed(["an elf"]), embed(["bad"])
    scales = {"image_scale": 1.5, "text_scale": 7.5}
    first = made.predict(LATENTS, T, PICTURED, words, avoided, **scales)
    assert not torch.allclose(first, made.predict(LATENTS, T, -PICTURED, words, avoided, **scales), atol=1e-2)


def test_pictures_do_not_depend_on_each_other():
    made, sampling = editor(), Sampling(steps=4, text_scale=3.0)
    noise = made.fixed_noise(0)
    both = made.edit(IMAGES, TOLD, noise, sampling).images
    alone = made.edit(IMAGES[1:], TOLD, noise, sampling).images
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)
    assert both.shape == IMAGES.shape and both.abs().max() <= 1
    assert not torch.equal(both, made.edit(IMAGES, TOLD, made.fixed_noise(1), sampling).images)


def test_pictures_of_another_size_keep_it():
    edited = editor().edit(IMAGES[..., :32, :32], TOLD, editor().fixed_noise(0), Sampling(steps=2))
    assert edited.images.shape == (2, 3, 32, 32)


def test_velocities_are_understood(monkeypatch):
    """v = sqrt(a) eps - sqrt(1 - a) x. An output of v that stands for a noise of 0 gives 0."""
    made = editor(fresh=True)
    parent = StableDiffusion(diffusion().unet, made.vae, made.alphas_cumprod, "v_prediction", embed)
    monkeypatch.setattr(made, "prediction", "v_prediction")
    words, avoided = embed(["an elf"]), embed(["bad"])
    found = made.predict(LATENTS, T, PICTURED, words, avoided, image_scale=1, text_scale=2)
    torch.testing.assert_close(
        found, parent.predict(LATENTS, T, words.expand(2, -1, -1), avoided, 2.0), rtol=1e-4, atol=1e-4
    )


def test_it_is_read_from_a_folder(tmp_path, monkeypatch):
    made = editor()
    save_vae(made.vae, tmp_path)
    save_unet(made.unet, tmp_path)
    module = "dreamportrait.systems.freestyle.instruct.make_embed"
    monkeypatch.setattr(module, lambda *_: embed)
    loaded = load_instruct_pix2pix(str(tmp_path), offline=True)
    sampling = Sampling(steps=3, text_scale=2.0)
    first, again = (x.edit(IMAGES, TOLD, made.fixed_noise(0), sampling).images for x in (made, loaded))
    torch.testing.assert_close(first, again, rtol=0, atol=0.05)  # the folder holds half precision
    assert loaded.origin == str(tmp_path) and loaded.latent_shape == (4, SIZE, SIZE)


def test_a_text_to_image_model_is_refused():
    parent = diffusion()
    with pytest.raises(ValueError, match="4 channels in and 4 out; an editor of pictures has 8 in"):
        InstructPix2Pix(parent.unet, parent.vae, parent.alphas_cumprod, "epsilon", embed)
    with pytest.raises(ValueError, match="models for inpainting or editing are not supported"):
        StableDiffusion(with_picture(parent.unet), parent.vae, parent.alphas_cumprod, "epsilon", embed)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"text_scale": -1}, "text_scale=-1: must not be negative"),
        ({"image_scale": float("nan")}, "image_scale"),
        ({"steps_after_start": "half"}, "steps_after_start='half'"),
    ],
)
def test_wrong_settings_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Sampling(**settings)


def test_distorted_pictures_are_refused():
    with pytest.raises(ValueError, match="others would be distorted"):
        editor().encode(torch.zeros(1, 3, 64, 32))
