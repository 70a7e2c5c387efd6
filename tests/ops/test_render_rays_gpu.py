"""Tests of the renderer that matter on a GPU. Those that a CPU can run, run there too. PyTorch is all they need."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from devices import no_synchronisation, on_devices
from ray_scenes import CASES, OUTPUTS, assert_as_good_as_twin, distance, outputs_and_gradients, random_draws, scene
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from eg3d_ops.planes import Decoder
from eg3d_ops.render_rays import CUDA_LIMITS, RenderedRays, _refuse_if_deterministic, render_rays

gpu = pytest.mark.gpu
Scene = dict[str, Any]


@pytest.fixture(autouse=True)
def _compiled_ops(request: pytest.FixtureRequest) -> None:
    """The tests demand compiled ops; on the CPU they need a compiler."""
    if not request.node.get_closest_marker("gpu"):
        request.getfixturevalue("compiled_cpu")


def on(device: str, s: Scene) -> Scene:
    """Return the scene with all tensors on the device."""
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in s.items()}
    return moved | {"decoder": Decoder(*(part.to(device) for part in s["decoder"]))}


def same(a: RenderedRays, b: RenderedRays) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ----- Values and gradients -------------------------------------------------------------------------------


def compare_with_twin(s: Scene, device: str, **options: Any) -> None:
    twin = outputs_and_gradients(s, "reference", **options)
    exact = outputs_and_gradients(s, "reference", torch.float64, **options)
    compiled = outputs_and_gradients(s, "compiled", device=device, **options)
    assert_as_good_as_twin({k: v.cpu() for k, v in compiled.items()}, twin, exact)


@pytest.mark.parametrize("case", [name for name in CASES if "wide" not in name])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("draws", ["midpoint", "random"])
@on_devices
def test_like_twin(case: str, dtype: torch.dtype, draws: Any, device: str) -> None:
    """Half precision affects only how planes and their gradients are stored."""
    sizes, options = CASES[case]
    s = scene(**sizes)
    if draws == "random":
        draws = random_draws(s, options.get("num_coarse", 48), options.get("num_fine", 48))
    s["planes"] = s["planes"].to(dtype)
    compare_with_twin(s, device, draws=draws, **options)


LARGEST = dict(zip(("channels", "hidden", "colors"), CUDA_LIMITS.values(), strict=False))
EIGHT_AXES = ((0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2), (0, 1), (1, 2))


@on_devices
@pytest.mark.lengthy
def test_largest_sizes(device: str) -> None:
    assert len(EIGHT_AXES) == CUDA_LIMITS["planes"]
    s = scene(rays=6, size=(9, 8), **LARGEST)
    s |= {"planes": scene(planes=8, size=(9, 8))["planes"], "plane_axes": EIGHT_AXES}
    compare_with_twin(s, device, num_coarse=130, num_fine=CUDA_LIMITS["samples per ray"] - 130)


@gpu
@pytest.mark.parametrize("what", CUDA_LIMITS)
def test_beyond_the_largest_sizes(what: str) -> None:
    sizes = {"channels": "channels", "hidden units": "hidden", "colours": "colors"}
    s, options = scene(rays=2), {}
    if what in sizes:
        s = scene(rays=2, **{sizes[what]: CUDA_LIMITS[what] + 1})
    elif what == "planes":
        s |= {"planes": scene(planes=9, rays=2)["planes"], "plane_axes": (*EIGHT_AXES, (0, 1))}
    else:
        options = {"num_coarse": 128, "num_fine": 129}
    with pytest.raises(ValueError, match=f"at most {CUDA_LIMITS[what]} {what}, got {CUDA_LIMITS[what] + 1}"):
        outputs_and_gradients(s, "compiled", device="cuda", **options)


@on_devices
@pytest.mark.lengthy
def test_official_size(device: str) -> None:
    """Planes of 256 x 256 texels and 128 x 128 rays: more blocks than a GPU has room for, offsets in the millions.

    On a CPU, fewer rays: they take the reference long, and there is no limit to be met.
    """
    s = scene(rays=128 * (128 if device == "cuda" else 8), size=(256, 256))
    # Smooth planes, as networks make them: on white noise, rounded positions of samples would dominate the differences.
    s["planes"] = torch.nn.functional.interpolate(s["planes"][0, :, :, ::8, ::8], size=(256, 256), mode="bilinear")[
        None
    ]
    found = outputs_and_gradients(s, "compiled", device=device)
    twin = outputs_and_gradients(s, "reference", device=device)
    for name in OUTPUTS:
        # Gradients of planes: float32 rounds positions up to 256 by 1.5e-5, so are weights of neighbours, several times
        # over. 3e-5 measured on a CPU with all rays, other outputs 2e-6. A wrong offset is an error of size 1.
        assert distance(found[name].cpu(), twin[name].cpu().double()) <= 1e-4, name


def misaligned(planes: Tensor) -> Tensor:
    """Return a copy that starts 4 bytes (for 16-bit types 2 bytes) behind a 16-byte boundary."""
    room = planes.new_empty(planes.numel() + 1)[1:]
    return room.copy_(planes.flatten()).view(planes.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "misaligned": misaligned,
    "misaligned channels last": lambda p: misaligned(p.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3),
    "every second column": lambda p: p.repeat_interleave(2, -1)[..., ::2],
    "part of a wider image": lambda p: torch.nn.functional.pad(p, (3, 2, 1, 0))[..., 1:, 3:-2],
    "transposed": lambda p: p.transpose(3, 4).contiguous().transpose(3, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@on_devices
def test_layouts(layout: str, dtype: torch.dtype, device: str) -> None:
    s = on(device, scene(rays=20, channels=16))
    planes = s["planes"].to(dtype)
    placed = LAYOUTS[layout](planes)
    assert placed.equal(planes) and (not placed.is_contiguous() or placed.data_ptr() % 16)
    expected, found = (render_rays(**{**s, "planes": p}, impl="compiled") for p in (planes, placed))
    assert same(found, expected)


@on_devices
def test_expanded_inputs(device: str) -> None:
    """One head for the whole batch, one camera for all rays: no input has memory of its own for each element."""
    s = on(device, scene(batch=3, rays=10))
    one = s["planes"][:1].expand_as(s["planes"]).requires_grad_()
    row = s["origins"][:1, :1].expand_as(s["origins"])
    expanded = render_rays(**{**s, "planes": one, "origins": row}, impl="compiled")
    dense = render_rays(**{**s, "planes": one.contiguous(), "origins": row.contiguous()}, impl="compiled")
    assert same(expanded, dense)
    (gradient,) = torch.autograd.grad(expanded.features.sum(), one)  # `sum` has an expanded gradient itself
    assert gradient.shape == one.shape and gradient.any()


@pytest.mark.parametrize("output", RenderedRays._fields)
@on_devices
def test_loss_on_one_output_only(output: str, device: str) -> None:
    """The other outputs then have no gradient; it counts as zero."""
    s = scene(rays=12)
    gradients = []
    for impl, where, dtype in (("compiled", device, torch.float32), ("reference", "cpu", torch.float64)):
        here = {k: v.to(where, dtype) if isinstance(v, Tensor) else v for k, v in s.items()}
        leaves = [t.detach().to(where, dtype).requires_grad_() for t in (s["planes"], *s["decoder"])]
        out = render_rays(**{**here, "planes": leaves[0], "decoder": Decoder(*leaves[1:])}, impl=impl)
        used = leaves if output == "features" else leaves[:4]
        gradients.append(torch.autograd.grad(getattr(out, output).square().sum(), used))
    for found, exact in zip(*gradients, strict=True):
        # Rounding moves importance samples on white-noise planes; float32 twins are off by up to 1e-4.
        assert distance(found.cpu(), exact) <= 1e-3


# ----- Repeated, in other streams, in graphs --------------------------------------------------------------


@pytest.mark.parametrize("draws", ["midpoint", "random"])
@on_devices
def test_forward_is_repeatable_bit_for_bit(draws: Any, device: str) -> None:
    s = scene(rays=700, size=(40, 30))
    draws = random_draws(s, 48, 48) if draws == "random" else draws
    moved = tuple(u.to(device) for u in draws) if isinstance(draws, tuple) else draws
    here = on(device, s)
    first = render_rays(**here, draws=moved, impl="compiled")
    assert all(same(render_rays(**here, draws=moved, impl="compiled"), first) for _ in range(5))


@on_devices
def test_gradients_of_the_decoder_are_repeatable(device: str) -> None:
    """Those of planes on a GPU are summed by atomic additions, whose order varies: equal only up to rounding."""
    s = scene(rays=700, size=(40, 30))
    first, again = (outputs_and_gradients(s, "compiled", device=device) for _ in range(2))
    exact = [name for name in OUTPUTS if name != "d_planes" or device == "cpu"]
    assert all(torch.equal(first[name], again[name]) for name in exact)
    assert distance(first["d_planes"], again["d_planes"].double()) <= 1e-6


@contextmanager
def deterministic(warn_only: bool = False) -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@on_devices
def test_deterministic_algorithms(device: str) -> None:
    s = on(device, scene(rays=5))
    planes = s.pop("planes").requires_grad_()
    with deterministic():
        out = render_rays(planes, **s, impl="compiled")
        if device == "cpu":
            out.features.sum().backward()
        else:
            with pytest.raises(RuntimeError, match="atomic additions in an order that varies"):
                out.features.sum().backward()


def test_deterministic_algorithms_without_a_gpu() -> None:
    """Only the device of the planes decides, so a fake tensor shows what a GPU would do."""
    with FakeTensorMode():
        planes = torch.empty(1, device="cuda")
        _refuse_if_deterministic(planes)
        with deterministic(), pytest.raises(RuntimeError, match="call it with warn_only=True, or train on a CPU"):
            _refuse_if_deterministic(planes)
        with deterministic(warn_only=True), pytest.warns(UserWarning, match="atomic additions in an order that varies"):
            _refuse_if_deterministic(planes)


@gpu
def test_cuda_side_stream() -> None:
    s = on("cuda", scene(rays=700))
    expected = render_rays(**s, impl="compiled")
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # the main stream is ahead by milliseconds
        late = {**s, "planes": s["planes"] + 0}  # exists only when the side stream has got there
        found = render_rays(**late, impl="compiled")
    torch.cuda.current_stream().wait_stream(side)
    assert same(found, expected)


@gpu
def test_cuda_second_device() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    assert torch.cuda.current_device() == 0
    s = scene(rays=60)
    first, second = (outputs_and_gradients(s, "compiled", device=f"cuda:{i}") for i in range(2))
    assert all(second[name].device.index == 1 for name in OUTPUTS)
    assert all(distance(second[name].cpu(), first[name].cpu().double()) <= 1e-6 for name in OUTPUTS)


@gpu
def test_cuda_graph() -> None:
    """Captured once, replayed with other planes: nothing on the way waits for the GPU or allocates on the host."""
    s = on("cuda", scene(rays=300))
    with torch.no_grad():
        render_rays(**s, impl="compiled")  # loads the library
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = render_rays(**s, impl="compiled")
        s["planes"].mul_(-0.5)
        graph.replay()
        assert same(captured, render_rays(**s, impl="compiled"))


@gpu
@pytest.mark.parametrize("impl", ["compiled", "reference"])
@pytest.mark.parametrize("limits", [(2.25, 3.3), ("auto", "auto")])
def test_cuda_never_waits(impl: str, limits: tuple[Any, Any]) -> None:
    s = on("cuda", scene(rays=60)) | {"ray_start": limits[0], "ray_end": limits[1]}
    planes = s.pop("planes").requires_grad_()
    render_rays(planes, **s, impl=impl)
    with no_synchronisation():
        out = render_rays(planes, **s, draws="random", impl=impl)
        out.features.square().sum().backward()


# ----- PyTorch's own checks -------------------------------------------------------------------------------


@on_devices
def test_autocast_changes_nothing(device: str) -> None:
    s = on(device, scene(rays=8))
    expected = render_rays(**s, impl="compiled")
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(device, dtype):
            assert same(render_rays(**s, impl="compiled"), expected)


def op_arguments(device: str) -> tuple[Any, ...]:
    s = on(device, scene(rays=5, channels=4, size=(6, 6), hidden=8, colors=3))
    near, far = torch.full((1, 5), 2.25, device=device), torch.full((1, 5), 3.3, device=device)
    decoder = [part.requires_grad_() for part in s["decoder"]]
    axes = [axis for pair in s["plane_axes"] for axis in pair]
    rays = (s["origins"].contiguous(), s["directions"], near, far)
    return (s["planes"].requires_grad_(), *rays, *decoder, None, None, axes, 1.0, 5, 3, False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # caused by opcheck
@on_devices
@pytest.mark.lengthy
def test_opcheck(device: str) -> None:
    torch.library.opcheck(torch.ops.eg3d_ops.render_rays.default, op_arguments(device))


@on_devices
@pytest.mark.lengthy
def test_inductor(device: str) -> None:
    s = on(device, scene(rays=16, channels=8, size=(9, 9)))
    planes = s.pop("planes")

    def loss(planes: Tensor) -> Tensor:
        out = render_rays(planes * 2, **s, num_coarse=8, num_fine=8, impl="compiled")
        return (out.features.square().mean() + out.depth.mean()) * 3

    a, b = (planes.clone().requires_grad_() for _ in range(2))
    expected, found = loss(a), torch.compile(loss, fullgraph=True)(b)
    # The kernel is the same; the code fused around it rounds differently.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    gradients = (torch.autograd.grad(x, at)[0] for x, at in ((found, b), (expected, a)))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@gpu
def test_cuda_more_than_2_to_31_elements() -> None:
    """Planes of 2.2e9 numbers of 16 bits: the last head is rendered from beyond the range of 32 bits."""
    sizes = {"channels": 32, "size": (256, 256), "rays": 30}
    s = on("cuda", scene(batch=1, **sizes))
    heads = 2**31 // s["planes"].numel() + 2
    free, _ = torch.cuda.mem_get_info()
    if free < 4 * heads * s["planes"].numel():  # planes and what they are packed into, two bytes each
        pytest.skip(f"needs {4 * heads * s['planes'].numel() / 2**30:.0f} GB of GPU memory")
    planes = torch.zeros(heads, *s["planes"].shape[1:], dtype=torch.bfloat16, device="cuda")
    planes[-1] = s["planes"][0]
    rays = {k: s[k].expand(heads, -1, -1) for k in ("origins", "directions")}
    found = render_rays(**{**copy.copy(s), **rays, "planes": planes}, impl="compiled")
    expected = render_rays(**{**s, "planes": planes[-1:].clone()}, impl="compiled")
    assert torch.equal(found.features[-1:], expected.features)
    assert torch.equal(found.weights[-1:], expected.weights)
