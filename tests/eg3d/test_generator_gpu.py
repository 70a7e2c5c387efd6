"""Tests of whole networks on a GPU: official values without TF32, CUDA graphs, no waiting, R1."""

import copy
from dataclasses import replace

import pytest
import torch
from devices import no_synchronisation, on_devices
from golden_generators import (
    BACKBONE,
    GRADIENT,
    IMAGE,
    NAMES,
    RENDERED,
    assert_stored,
    golden_generator,
    half_draws,
    inputs,
)
from golden_networks import relative, state
from goldens import load
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import eg3d_ops
from dreamportrait.core.precision import float32_rule
from dreamportrait.eg3d.discriminator import DualDiscriminator
from dreamportrait.eg3d.official import discriminator_config_from_official
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from eg3d_ops.upfirdn2d import remember_finite

gpu = pytest.mark.gpu


def moved(generator: TriPlaneGenerator, name: str, device: str) -> tuple[TriPlaneGenerator, dict[str, Tensor]]:
    return generator.to(device), {key: value.to(device) for key, value in inputs(name).items()}


@gpu
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_cuda_golden(name: str) -> None:
    """The tolerances are those of the CPU: with TF32, errors would be a hundred times as large."""
    assert float32_rule() == "exact"
    generator, given = moved(golden_generator(name), name, "cuda")
    size = load(name).info["neural_rendering_resolution"]
    w = generator.map(given["z"], given["c"])
    planes = generator.synthesize_planes(w)
    draws = tuple(u.cuda() for u in half_draws(generator, len(planes), size))
    out = generator.render(planes, given["c"], w=w, resolution=size, draws=draws, impl="compiled")
    assert_stored(name, "planes", planes.flatten(1, 2).cpu(), BACKBONE)
    assert_stored(name, "depth", out.depth.cpu(), RENDERED)
    assert_stored(name, "image_raw", out.image_raw.cpu(), RENDERED)
    assert_stored(name, "image", out.image.cpu(), IMAGE)
    assert_stored(name, "weights_sum", out.weights.flatten(2).mT.cpu(), RENDERED)


@gpu
def test_cuda_gradients() -> None:
    """Every gradient agrees with that of the CPU, which test_generator.py compares with the official one."""
    found = []
    for device in ("cpu", "cuda"):
        generator, given = moved(golden_generator("generator_tiny"), "generator_tiny", device)
        out = generator(given["z"], given["c"], resolution=16)
        (out.image.square().mean() + out.image_raw.mean()).backward()
        found.append({key: p.grad for key, p in generator.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, expected in found[0].items():
        assert (found[1][key].cpu() - expected).norm() <= GRADIENT * expected.norm(), key


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # if the capture fails, its own error counts
@gpu
@torch.no_grad()
def test_cuda_graph_of_a_whole_image() -> None:
    generator, given = moved(golden_generator("generator_tiny").eval(), "generator_tiny", "cuda")
    z, camera = given["z"].clone(), given["c"].clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # loads libraries, checks filters, chooses algorithms
        for _ in range(3):
            generator(z, camera, resolution=16)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = generator(z, camera, resolution=16)
    z.copy_(given["z"].flip(0))
    graph.replay()
    expected = generator(z, camera, resolution=16)
    assert relative(captured.image, expected.image) <= IMAGE
    assert not torch.equal(captured.image[0], captured.image[1])


@gpu
@pytest.mark.parametrize("inference", [False, True])
def test_cuda_never_waits(inference: bool) -> None:
    """An image is put into the queue of the GPU as a whole, also if the network was made in inference mode."""
    with torch.inference_mode(inference), torch.no_grad():
        generator, given = moved(golden_generator("generator_tiny"), "generator_tiny", "cuda")
        generator(given["z"], given["c"], resolution=16)  # checks filters, once
        with no_synchronisation():
            generator(given["z"], given["c"], resolution=16)


# ----- The same without a GPU: what the host asks of the device -------------------------------------------


class Asked(TorchDispatchMode):
    """Records the operations that bring numbers from the host to the device or back, or need their values."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        devices = {x.device.type for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.ndim}
        name = str(func).removeprefix("aten.").split(".")[0]
        if len(devices) > 1 or name in self.WAITING:
            self.waiting.append(str(func))
        return out


@pytest.mark.parametrize("impl", ["compiled", "reference"])
@pytest.mark.parametrize("limits", [(2.25, 3.3), ("auto", "auto")])
@torch.no_grad()
@pytest.mark.lengthy
def test_an_image_asks_nothing_of_the_host(impl: str, limits: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors on a GPU that need not exist: no value is read, and nothing is copied from the host on the way."""
    monkeypatch.setattr("eg3d_ops._backend._resolve", lambda *_: True)  # as if the ops were there
    generator = golden_generator("generator_tiny")
    generator.config = replace(generator.config, ray_start=limits[0], ray_end=limits[1])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for owner in generator.modules():  # fake copies of the weights, on a GPU
            for values in (owner._parameters, owner._buffers):
                for key, value in values.items():
                    if value is not None:
                        values[key] = mode.from_tensor(value.detach()).to("cuda")
                        remember_finite(values[key])  # a filter is looked into once, which has a test of its own
        z, camera = torch.empty(2, generator.config.z_dim, device="cuda"), torch.empty(2, 25, device="cuda")
        with Asked() as asked:
            w = generator.map(z, camera, truncation_psi=0.7)
            out = generator.render(generator.synthesize_planes(w), camera, w=w, resolution=16, impl=impl)
    assert out.image.device.type == "cuda"
    assert asked.waiting == []


# ----- R1 -------------------------------------------------------------------------------------------------


def r1_gradients(network: nn.Module, device: str) -> dict[str, Tensor]:
    """Return the gradients of the R1 penalty: second derivatives through every op of the discriminator."""
    network, given = network.to(device), load("discriminator_tiny").group("in")
    image = (given["image_u8"].to(device).float() / 127.5 - 1).requires_grad_()
    raw = given["image_raw"].to(device).requires_grad_()
    logits = network(image, raw, given["c"].to(device))
    slopes = torch.autograd.grad(logits.sum(), [image, raw], create_graph=True)
    sum(slope.square().sum() for slope in slopes).backward()
    return {key: p.grad for key, p in network.named_parameters() if p.grad is not None}


@on_devices
@pytest.mark.lengthy
def test_r1(device: str, compiled_cpu: object) -> None:
    """The compiled ops on the device agree with the PyTorch implementations on the CPU."""
    made = DualDiscriminator(discriminator_config_from_official(load("discriminator_tiny").info["init_kwargs"]))
    made.load_state_dict(state("discriminator_tiny"))
    eg3d_ops.set_backend("reference")
    expected = r1_gradients(copy.deepcopy(made), "cpu")
    eg3d_ops.set_backend("auto")
    found = r1_gradients(made, device)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        assert (found[key].cpu() - gradient).norm() <= GRADIENT * gradient.norm(), key
