"""Tests of text features against open_clip's own forward pass, which hooks record."""

import logging

import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.tower import TextTower

VISION = {"image_size": 32, "width": 16, "layers": 1, "head_width": 8, "patch_size": 16}
PROMPTS = ["a woman with red hair", "an old man wearing a blue hat and glasses, on a white background", ""]


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def make(kind: type[nn.Module] = CLIP, **text: object) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3} | text
    return kind(8, dict(VISION), sizes).eval().requires_grad_(False)


def watched(model: nn.Module, tokens: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the output of a text block while open_clip encodes the tokens, and open_clip's result."""
    seen: list[Tensor] = []
    blocks = getattr(model, "text", model).transformer.resblocks
    handle = blocks[block].register_forward_hook(lambda *call: seen.append(call[-1]))
    features = model.encode_text(tokens, normalize=True)
    handle.remove()
    return seen[0], features


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_penultimate_layer_with_the_last_normalisation(kind: type[nn.Module], tokenizer: SimpleTokenizer) -> None:
    model = make(kind)
    tokens = tokenizer(PROMPTS)
    penultimate, _ = watched(model, tokens, -2)
    last, _ = watched(model, tokens, -1)
    norm = getattr(model, "text", model).ln_final
    features = TextEncoder(model, tokenizer).encode(PROMPTS, shorten=False)
    torch.testing.assert_close(features.words, norm(penultimate))
    assert features.words.shape == (3, 77, 16)
    assert (features.words - norm(last)).abs().max() > 0.1


@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_the_tower_itself_agrees_with_open_clip(kind: type[nn.Module], tokenizer: SimpleTokenizer) -> None:
    model = make(kind)
    tokens = tokenizer(PROMPTS)
    _, expected = watched(model, tokens, -1)
    tower = TextTower(model)
    end = tower.eot(tokens)
    short = tower.layers(tokens[:, : int(end.max()) + 1])
    assert len(short) == 4  # the embedding and three blocks
    torch.testing.assert_close(tower.project(short[-1][torch.arange(3), end]), expected)


def test_end_of_text_and_mask(tokenizer: SimpleTokenizer) -> None:
    features = TextEncoder(make(), tokenizer).encode(PROMPTS, shorten=False)
    # start, five words, end | start, 14 words, end | start, end
    lengths = [7, 16, 2]
    assert [len(tokenizer.encode(prompt)) + 2 for prompt in PROMPTS] == lengths
    for row, length in enumerate(lengths):
        assert features.mask[row].tolist() == [True] * length + [False] * (77 - length)
        torch.testing.assert_close(features.eot[row], features.words[row, length - 1], rtol=0, atol=0)


def test_exclamation_marks_are_words_though_padding_has_their_number(tokenizer: SimpleTokenizer) -> None:
    assert tokenizer.encode("!") == [256]  # at the end of a word; inside a word it is 0, like padding
    tokens = tokenizer.encode("!x")
    features = TextEncoder(make(), tokenizer).encode(["!x"], shorten=False)
    assert int(features.mask.sum()) == len(tokens) + 2


def test_shortened_features_are_the_same(tokenizer: SimpleTokenizer) -> None:
    encoder = TextEncoder(make(), tokenizer)
    whole, short = encoder.encode(PROMPTS, shorten=False), encoder.encode(PROMPTS)
    assert short.words.shape == (3, 16, 16)
    torch.testing.assert_close(short.words, whole.words[:, :16])
    torch.testing.assert_close(short.eot, whole.eot)
    assert torch.equal(short.mask, whole.mask[:, :16])


def test_eos_pooling(tokenizer: SimpleTokenizer) -> None:
    """Some models find the end of text by its token number; in this test it is not the highest number."""
    model = make(pool_type="eos", eos_id=49406)
    assert TextTower(model).eot(torch.tensor([[5, 49407, 49406, 0], [49406, 7, 0, 0]])).tolist() == [2, 0]


def test_prompts_that_are_too_long(tokenizer: SimpleTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    encoder = TextEncoder(make(), tokenizer)
    with caplog.at_level(logging.WARNING):
        fits = encoder.encode(["hat " * 75])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        cut = encoder.encode(["hat " * 74 + "hat red glasses"])
    assert "77 tokens is cut to its first 75" in caplog.text
    torch.testing.assert_close(cut.words, fits.words)
    assert bool(cut.mask.all())


def test_refuses_what_it_cannot_read(tokenizer: SimpleTokenizer) -> None:
    with pytest.raises(ValueError, match="1 layer has no penultimate"):
        TextEncoder(make(layers=1), tokenizer)
    with pytest.raises(TypeError, match="not causal"):
        TextTower(make(CustomTextCLIP, no_causal_mask=True))
    with pytest.raises(TypeError, match="pools 'last'"):
        TextTower(make(pool_type="last"))
    with pytest.raises(TypeError, match="Linear has no token_embedding"):
        TextTower(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="at most 77"):
        TextTower(make()).layers(torch.zeros(1, 78, dtype=torch.long))
    encoder = TextEncoder(make(), tokenizer)
    for prompts in ([], "a woman"):
        with pytest.raises(ValueError, match="give a list of at least one text"):
            encoder.encode(prompts)  # type: ignore[arg-type]
