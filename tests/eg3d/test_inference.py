"""Tests of inference without weights per sample: the values of training, and which weights are remembered."""

import copy
import gc
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from op_checks import normal
from torch import Tensor, nn

import eg3d_ops
from dreamportrait.eg3d import inference
from dreamportrait.eg3d.inference import FEWEST_PIXELS, kind_of_convolution, modulated_pixels, prepare, prepared
from dreamportrait.eg3d.synthesis import SynthesisBlock

W_DIM = 8


def block(in_channels: int = 32, out_channels: int = 64, seed: int = 0, **options: object) -> SynthesisBlock:
    torch.manual_seed(seed)
    made = SynthesisBlock(in_channels, out_channels, W_DIM, resolution=16, img_channels=3, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, value in made.named_parameters():
            if name.endswith(("bias", "noise_strength")):  # these start at constants, which would hide mistakes
                value.copy_(torch.randn_like(value) * 0.3)
    return made.eval()


def inputs(made: SynthesisBlock, batch: int = 2) -> tuple[Tensor | None, Tensor | None, Tensor]:
    first = made.num_convs == 1
    size = 16 // made.up
    channels = 0 if first else made.conv0.weight.shape[1]
    ws = normal(batch, made.num_convs + 1, W_DIM, seed=1)
    if first:
        return None, None, ws
    return normal(batch, channels, size, size, seed=2), normal(batch, 3, size, size, seed=3), ws


def as_in_training(made: SynthesisBlock, *given: Tensor | None, noise: str = "const") -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        features, image = made(*given, noise=noise)
    return features.detach(), image.detach()


CASES = {
    "first block": {"in_channels": 0},
    "upsampling": {},
    "no upsampling": {"up": 1},
    "clamped": {"clamp": 0.5},
    "not multiples of 16": {"in_channels": 9, "out_channels": 7},
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_values_of_training(case: str, noise: str, batch: int, impl: str) -> None:
    made = block(**CASES[case])  # type: ignore[arg-type]
    eg3d_ops.set_backend("reference" if impl == "reference" else "auto")
    given = inputs(made, batch)
    for found, expected in zip(made(*given, noise), as_in_training(made, *given, noise=noise), strict=True):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        # float32 sums of up to 576 products in another order. Any part left out is an error of 0.1.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_every_kind_of_convolution_is_among_these(compiled_cpu: object) -> None:
    made = block()
    made(*inputs(made), "const")
    assert [kind for conv in (made.conv0, made.conv1) for _, kind in inference._prepared[conv.weight][1]] == [
        "transposed",
        "winograd",
    ]


@torch.no_grad()
def test_random_noise_has_the_same_draws() -> None:
    made, results = block(), []
    for run in (made, lambda *given, noise: as_in_training(made, *given, noise=noise)):
        torch.manual_seed(5)
        results.append(run(*inputs(made), noise="random")[0])
    torch.testing.assert_close(*results, rtol=1e-5, atol=2e-5)
    assert not results[0].equal(made(*inputs(made), "none")[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_neither_overflows_nor_loses(dtype: torch.dtype) -> None:
    """Weights and styles of any size: demodulation cancels it. 65504 is the largest number of float16."""
    made, exact = block(dtype=dtype), block()
    for network in (made, exact):
        for conv in (network.conv0, network.conv1):
            conv.weight.mul_(1e4)
            conv.affine.weight.mul_(1e3)
    features, expected = (network(*inputs(network), "const")[0].float() for network in (made, exact))
    # Two layers of numbers with 11 or 8 bits.
    limit = {torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert (features - expected).norm() <= limit * expected.norm()


# ----- Where it applies -----------------------------------------------------------------------------------


@torch.no_grad()
def test_a_network_in_training_is_computed_as_with_gradients() -> None:
    """So that everything in a training step is a function of the same arithmetic."""
    made = block().train()
    expected = as_in_training(made, *inputs(made))[0]
    assert made(*inputs(made), "const")[0].equal(expected)
    assert made.conv0.weight not in inference._prepared
    made.requires_grad_(False)  # an average of weights stays in training mode, and does not train
    made(*inputs(made), "const")
    assert made.conv0.weight in inference._prepared


@pytest.mark.parametrize(
    ("size", "co", "up", "dtype", "kind"),
    [
        ((1, 16, 8, 8), 64, 1, torch.float32, "winograd"),
        ((1, 16, 8, 8), 176, 1, torch.float32, "winograd"),
        ((1, 16, 8, 8), 64, 2, torch.float32, "transposed"),
        ((1, 16, 8, 8), 64, 1, torch.bfloat16, "direct"),
        ((1, 24, 8, 8), 64, 1, torch.float32, "direct"),
        ((1, 16, 8, 8), 32, 1, torch.float32, "direct"),  # half of a panel
        ((1, 16, 4, 4), 64, 1, torch.float32, "direct"),
        ((FEWEST_PIXELS // 16, 16, 4, 4), 64, 1, torch.float32, "winograd"),
    ],
)
def test_kind_of_convolution(
    size: tuple[int, ...], co: int, up: int, dtype: torch.dtype, kind: str, compiled_cpu: object
) -> None:
    x, weight = torch.ones(size, dtype=dtype), nn.Parameter(torch.ones(co, size[1], 3, 3))
    assert kind_of_convolution(x, weight, up) == kind
    eg3d_ops.set_backend("reference")
    assert kind_of_convolution(x, weight, up) == ("transposed" if up == 2 else "direct")


def test_weights_that_cannot_be_remembered_are_not_transformed(compiled_cpu: object) -> None:
    with torch.inference_mode():
        weight = torch.ones(64, 16, 3, 3)
        assert kind_of_convolution(torch.ones(1, 16, 8, 8), weight, up=1) == "direct"
        before = prepared(weight, torch.float32, "direct")
        weight.mul_(2)
        assert prepared(weight, torch.float32, "direct").squares.equal(4 * before.squares)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_modulated_pixels(layout: torch.memory_format) -> None:
    x, weight, styles = normal(2, 5, 3, 4), normal(7, 5, 1, 1, seed=1), normal(2, 5, seed=2)
    expected = F.conv2d(x * styles[:, :, None, None], weight)
    found = modulated_pixels(x.to(memory_format=layout), weight, styles)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=layout)


# ----- Remembered weights ---------------------------------------------------------------------------------


def test_prepared_once() -> None:
    weight = nn.Parameter(normal(16, 32, 3, 3))
    first = prepared(weight, torch.float32, "direct")
    assert prepared(weight, torch.float32, "direct") is first
    assert prepared(weight, torch.bfloat16, "direct").weight.dtype == torch.bfloat16
    assert prepared(weight, torch.float32, "direct") is first
    assert not first.weight.requires_grad and not first.squares.requires_grad


def optimise(made: SynthesisBlock, **options: bool) -> None:
    made.train()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1, **options)
    made(*inputs(made), "const")[0].square().mean().backward()
    optimizer.step()
    made.eval()


@torch.no_grad()
def replace_data(made: SynthesisBlock) -> None:
    made.conv1.weight.data = made.conv1.weight.data * 2 + 1


CHANGES: dict[str, Callable[[SynthesisBlock], object]] = {
    "in place": lambda made: made.conv1.weight.detach().add_(1),
    "loaded": lambda made: made.load_state_dict(block(seed=9).state_dict()),
    "other memory": replace_data,
    "Adam": optimise,
    "fused Adam": lambda made: optimise(made, fused=True),  # PyTorch does not count its changes
    "other parameter": lambda made: setattr(made.conv1, "weight", nn.Parameter(normal(64, 64, 3, 3, seed=8))),
    "float64 and back": lambda made: made.double().float().conv1.weight.detach().mul_(-1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_prepared_anew(change: str) -> None:
    made = block()
    with torch.no_grad():
        before = made(*inputs(made), "const")[0]
    CHANGES[change](made)
    with torch.no_grad():
        found, expected = made(*inputs(made), "const")[0], as_in_training(made, *inputs(made))[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert (found - before).abs().max() > 1e-3


def test_prepared_weights_go_with_their_parameter() -> None:
    gc.collect()
    before = len(inference._prepared)
    made = block()
    with torch.no_grad():
        made(*inputs(made), "const")
    assert len(inference._prepared) == before + 2
    del made
    gc.collect()
    assert len(inference._prepared) == before


def test_made_in_inference_mode_and_used_outside() -> None:
    """What is prepared inside inference mode can be used everywhere."""
    made = block()
    with torch.inference_mode():
        made(*inputs(made), "const")
    scale = torch.ones(1, 64, requires_grad=True)
    (scale * prepared(made.conv1.weight, torch.float32, "direct").squares).sum().backward()
    assert scale.grad is not None


def test_a_copy_has_weights_of_its_own() -> None:
    made = block()
    with torch.no_grad():
        before = made(*inputs(made), "const")[0]
        other = copy.deepcopy(made)
        other.conv1.weight.mul_(-1)
        assert not other(*inputs(made), "const")[0].equal(before)
        assert made(*inputs(made), "const")[0].equal(before)


@pytest.mark.parametrize("kind", ["direct", "transposed", "winograd"])
def test_squares(kind: inference.Kind) -> None:
    weight = normal(16, 32, 3, 3)
    squares = prepare(weight, torch.float32, kind).squares
    torch.testing.assert_close(squares, torch.einsum("oiyx, oiyx -> io", weight, weight))
