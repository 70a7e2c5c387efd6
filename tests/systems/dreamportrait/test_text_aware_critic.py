"""Tests of the text-aware discriminator: it starts as the plain one and learns which prompt fits which picture."""

import pytest
import torch
from torch import Tensor

from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.training.losses import discriminator_loss, r1_penalty

SIZE, WIDTH = 16, 12
CONFIG = DiscriminatorConfig(image_resolution=SIZE, channel_base=128, channel_max=8, num_low_precision=0)


def given(count: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return (
        torch.randn(count, 3, SIZE, SIZE),
        torch.randn(count, 3, 8, 8),
        torch.randn(count, 25),
        torch.randn(count, WIDTH),
    )


def make(text_width: int | None = WIDTH) -> Critic:
    torch.manual_seed(0)
    return Critic(DualDiscriminator(CONFIG), text_width)


def test_begins_with_the_opinion_of_the_plain_discriminator():
    image, raw, camera, eot = given()
    expected = make(None).discriminator(image, raw, camera)
    assert torch.equal(make()(image, raw, camera, eot), expected)
    assert torch.equal(make(None)(image, raw, camera, eot), expected)
    assert make().reads and not make(None).reads


def test_text_is_compared_with_what_is_seen():
    """The logit must gain the scalar product of features and projected text, over the root of their number."""
    image, raw, camera, eot = given()
    critic = make()
    before = critic(image, raw, camera, eot)
    torch.nn.init.normal_(critic.projection.weight)
    features = critic.discriminator.features(image, raw)
    scaled = eot / eot.square().mean(1, keepdim=True).sqrt()
    added = scaled @ critic.projection.weight.T / WIDTH**0.5
    by_hand = before + (features * added).sum(1, keepdim=True) / features.shape[1] ** 0.5
    # The tolerance covers an epsilon of 1e-8 in the scaling of text and another order of the sums.
    torch.testing.assert_close(critic(image, raw, camera, eot), by_hand, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(critic(image, raw, camera, 7 * eot), by_hand, rtol=1e-5, atol=1e-5)


@pytest.mark.lengthy
def test_learns_which_prompt_belongs_to_which_picture():
    image, raw, camera, eot = given(8)
    image, raw, camera = image[:1].repeat(8, 1, 1, 1), raw[:1].repeat(8, 1, 1, 1), camera[:1].repeat(8, 1)
    signs = torch.ones(8, 1, 1, 1)
    signs[4:] = -1
    image, eot = image * signs, torch.where(signs[:, :, 0, 0] > 0, eot[:1], eot[1:2])
    other = eot.roll(4, 0)
    critic = make()
    optimizer = torch.optim.Adam(critic.parameters(), 0.01, (0.0, 0.99))
    for _ in range(60):
        loss = discriminator_loss(critic(image, raw, camera, eot), critic(image, raw, camera, other))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert critic(image, raw, camera, eot).min() > critic(image, raw, camera, other).max()


def test_r1_goes_through_it():
    image, raw, camera, eot = given()
    critic = make()
    torch.nn.init.normal_(critic.projection.weight)
    penalty = r1_penalty(lambda *seen: critic(*seen, eot), image, raw, camera).mean()
    penalty.backward()
    assert critic.projection.weight.grad.abs().sum() > 0


def test_text_is_missing():
    with pytest.raises(ValueError, match="was given no text; pass the prompts' eot"):
        make()(*given()[:3])
