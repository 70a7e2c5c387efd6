"""Tests of mixing prompts and seeds, on tiny models."""

from collections.abc import Iterator

import pytest
import torch
from tiny_pipeline import write_portrait
from tiny_portraits import TEXT, equip, latents

from dreamportrait.eg3d.planes import Planes
from dreamportrait.systems.dreamportrait.mixing import Mix, first_layers
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

PROMPTS = ["a woman with red hair", "an old man wearing a blue hat and glasses", "a bald man"]
# Adapters run on a batch of all parts, and batches of different sizes are summed in different orders.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DreamPortraitPipeline:
    return DreamPortraitPipeline.from_pretrained(write_portrait(tmp_path_factory.mktemp("models") / "portrait"))


@pytest.fixture
def words_only() -> Mix:
    """Return a mix of two prompts that act through adapters only: both parts have the same ws."""
    generator = equip({"global_path": False})
    z, cameras = latents()
    ws = generator.map(z[:1], cameras[:1], None).expand(2, -1, -1)
    return Mix(generator, ("a", "b"), (0, 0), ws, TEXT, cameras[:1])


# Ends, averages and layers.


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
def test_a_part_alone_is_its_own_portrait(pipe: DreamPortraitPipeline, strength: float) -> None:
    mix = pipe.mix(PROMPTS, [3, 4, 5], num_views=2, truncation=0.7, strength=strength)
    for k, (prompt, seed) in enumerate(zip(PROMPTS, [3, 4, 5], strict=True)):
        made = mix.blend(*(float(k == i) for i in range(3)))
        expected = pipe(prompt, seed, num_views=2, truncation=0.7, strength=strength)
        assert (made.prompt, made.seed) == (prompt, seed)
        torch.testing.assert_close(made.planes, expected.planes, **CLOSE)
        torch.testing.assert_close(made.colors, expected.colors, **CLOSE)


def test_weights_average_ws(pipe: DreamPortraitPipeline) -> None:
    a, b = pipe(PROMPTS[:2], 3)
    made = pipe.mix(PROMPTS[:2], 3).blend(1, 3)  # the sum of weights counts as 1
    torch.testing.assert_close(made.ws, 0.25 * a.ws + 0.75 * b.ws)
    assert made.prompt == f"0.25 {PROMPTS[0]} + 0.75 {PROMPTS[1]}" and made.seed is None
    assert (made.planes - a.planes).abs().mean() > 0.01 and (made.planes - b.planes).abs().mean() > 0.01


def test_seeds_of_one_prompt(pipe: DreamPortraitPipeline) -> None:
    made = pipe.mix(PROMPTS[0], [1, 2]).blend(1, 1)
    a, b = pipe(PROMPTS[:1] * 2, [1, 2])
    torch.testing.assert_close(made.ws, (a.ws + b.ws) / 2)
    assert made.prompt == f"{PROMPTS[0]}: 0.50 seed 1 + 0.50 seed 2"


def test_layers_come_from_one_part_after_the_other(pipe: DreamPortraitPipeline) -> None:
    mix = pipe.mix(PROMPTS, 3)
    assert mix.num_layers == 6  # one, two and two convolutions, and the last block's colours
    made = mix.layered(1, 4)
    owners = [0, 1, 1, 1, 2, 2]
    assert torch.equal(made.ws, torch.stack([mix.ws[k, layer] for layer, k in enumerate(owners)]))
    assert made.prompt == " + ".join(
        f"{prompt} in layers {layers}" for prompt, layers in zip(PROMPTS, ("0 to 0", "1 to 3", "4 to 5"), strict=True)
    )


def test_adapters_average_what_the_prompts_change(words_only: Mix) -> None:
    generator, x = words_only.generator, torch.randn(1, words_only.generator.adapters["4"].read.weight.shape[1], 4, 4)
    between = words_only._between(words_only.shares([0.3, 0.7]))
    assert between is not None
    own = [generator._between(each, 1, 1.0) for each in parts(words_only)]
    a, b = (each(4, x) for each in own if each is not None)
    assert (a - b).abs().mean() > 0.01
    torch.testing.assert_close(between(4, x), 0.3 * a + 0.7 * b, **CLOSE)
    assert between(32, x) is x  # no adapter there


def test_an_adapter_gets_the_shares_of_the_next_block(words_only: Mix) -> None:
    """The adapter after block 4 changes the input of block 8, whose first layer is 1, and so on."""
    assert first_layers(words_only.generator) == {4: 0, 8: 1, 16: 3, 32: 5}
    own = [words_only.generator.synthesize_planes(words_only.ws[:1], each) for each in parts(words_only)]
    only_a, only_b = (planes.detach() for planes in own)
    assert (only_a - only_b).abs().mean() > 0.01
    for start in (1, 2, 3, 4, 5, 6, 7):
        planes = words_only.head(words_only.layer_shares([start])).planes
        # Only prompt b from layer 1 on; only prompt a if b begins after the last block's first layer.
        torch.testing.assert_close(planes, only_b if start == 1 else planes, **CLOSE)
        torch.testing.assert_close(planes, only_a if start > 5 else planes, **CLOSE)
        if 1 < start <= 5:
            assert (planes - only_a).abs().mean() > 1e-3 and (planes - only_b).abs().mean() > 1e-3


def parts(mix: Mix) -> Iterator:
    for k in range(len(mix)):
        yield type(mix.text)(mix.text.words[k : k + 1], mix.text.eot[k : k + 1], mix.text.mask[k : k + 1])


# Paths.


def test_steps_go_through_all_parts(pipe: DreamPortraitPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = pipe.mix(PROMPTS, 3, num_views=2)
    made = mix.steps(5)
    assert [each.prompt for each in made][::2] == PROMPTS and made.images.shape == (5, 2, 16, 16, 3)
    torch.testing.assert_close(made[1].ws, (mix.ws[0] + mix.ws[1]) / 2)
    torch.testing.assert_close(made[3].ws, (mix.ws[1] + mix.ws[2]) / 2)
    passes: list[int] = []
    handle = pipe.generator.generator.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    backbone = pipe.generator.generator.backbone.synthesis
    other = backbone.register_forward_hook(lambda *_: passes.append(1))
    heads = mix.heads(5)
    assert passes == []  # nothing is drawn before it is asked for
    for head, portrait in zip(heads, made, strict=True):
        assert isinstance(head, Planes) and torch.equal(head.planes[0], portrait.planes)
    assert passes == [1] * 5
    handle.remove()
    other.remove()


def test_steps_are_even_in_w(pipe: DreamPortraitPipeline) -> None:
    ws = torch.stack([each.ws for each in pipe.mix(PROMPTS[:2], 3).steps(6)])
    steps = (ws[1:] - ws[:-1]).norm(dim=(1, 2))
    torch.testing.assert_close(steps, steps[:1].expand(5), **CLOSE)


def test_layers_are_taken_over_from_the_last_to_the_first(pipe: DreamPortraitPipeline) -> None:
    mix = pipe.mix(PROMPTS[:2], 3)
    count = mix.num_layers
    made = mix.steps(2 * count + 1, by_layers=True)
    for k, portrait in enumerate(made):
        whole, half = divmod(k, 2)  # layers that have changed
        first, changed = mix.ws[0].clone(), mix.ws[1]
        if whole:
            first[-whole:] = changed[-whole:]
        if half:
            first[-whole - 1] = (mix.ws[0] + changed)[-whole - 1] / 2
        torch.testing.assert_close(portrait.ws, first)
    assert made[0].prompt == PROMPTS[0] and made[len(made) - 1].prompt == PROMPTS[1]


def test_nothing_else_changes(pipe: DreamPortraitPipeline) -> None:
    before = {name: value.clone() for name, value in pipe.generator.state_dict().items()}
    made = pipe.mix(PROMPTS, [1, 2, 3]).blend(1, 1, 1)
    assert not made.planes.requires_grad and not made.colors.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in pipe.generator.state_dict().items())


# Errors.


@pytest.mark.parametrize(
    ("prompts", "seed", "message"),
    [
        ("a man", 0, "several prompts, or several seeds"),
        (["a man"], [3], "several prompts, or several seeds"),
        (["a", "b"], [1, 2, 3], "3 seeds for 2 prompts"),
        (["a", "b"], -1, "seed must be at least 0"),
    ],
)
def test_what_cannot_be_mixed(pipe: DreamPortraitPipeline, prompts: list[str], seed: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe.mix(prompts, seed)


@pytest.mark.parametrize("weights", [(), (1,), (1, 2, 3), (0, 0), (-1, 2), (1, float("nan"))])
def test_wrong_weights(pipe: DreamPortraitPipeline, weights: tuple) -> None:
    with pytest.raises(ValueError, match="weight"):
        pipe.mix(PROMPTS[:2]).blend(*weights)


@pytest.mark.parametrize("starts", [(), (0,), (6,), (2, 3), (-1,)])
def test_wrong_layers(pipe: DreamPortraitPipeline, starts: tuple) -> None:
    with pytest.raises(ValueError, match="layer"):
        pipe.mix(PROMPTS[:2]).layered(*starts)


def test_layers_must_ascend(pipe: DreamPortraitPipeline) -> None:
    with pytest.raises(ValueError, match=r"layers \[4, 2\]: must be 2 ascending numbers from 1 to 5"):
        pipe.mix(PROMPTS).layered(4, 2)


def test_too_few_steps(pipe: DreamPortraitPipeline) -> None:
    mix = pipe.mix(PROMPTS)
    for make in (mix.steps, mix.heads):
        with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
            make(1)
