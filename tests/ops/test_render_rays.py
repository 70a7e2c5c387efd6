"""Tests of the fused renderer: official values, compiled against reference, and rejected inputs."""

import pytest
import torch
from goldens import load
from ray_scenes import CASES, OUTPUTS, assert_as_good_as_twin, outputs_and_gradients, random_draws, scene

from dreamportrait.geometry.rays import rays_from_label
from eg3d_ops.planes import PLANE_AXES, Decoder
from eg3d_ops.render_rays import render_rays


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("draws", ["midpoint", "random"])
def test_compiled_like_twin(case, draws, isa):
    sizes, options = CASES[case]
    s = scene(**sizes)
    if draws == "random":
        draws = random_draws(s, options.get("num_coarse", 48), options.get("num_fine", 48))
    twin = outputs_and_gradients(s, "reference", draws=draws, **options)
    exact = outputs_and_gradients(s, "reference", torch.float64, draws=draws, **options)
    assert_as_good_as_twin(outputs_and_gradients(s, "compiled", draws=draws, **options), twin, exact)


# The measured difference from the official renders is at most 1.8e-6 of the largest value (float32 sums in another
# order); the reference data suggests a tolerance of 1e-4.
@pytest.mark.parametrize("impl", ["reference", "compiled"])
@pytest.mark.parametrize("variant", load("renderer").info["render"]["variants"])
def test_golden_render(variant, impl, request):
    if impl == "compiled":
        request.getfixturevalue("compiled_cpu")
    golden, t = load("renderer").info["render"], load("renderer").group("render")
    options = {**golden["base_options"], **golden["variants"][variant]["overrides"]}
    coarse, fine = options["depth_resolution"], options["depth_resolution_importance"]
    origins, directions = rays_from_label(t["cameras"], golden["resolution"])
    # The stored weights of a layer are multiplied by 1 / sqrt(inputs) (equalised learning rate).
    layers = [(t[f"decoder.net.{i}.weight"], t[f"decoder.net.{i}.bias"]) for i in (0, 2)]
    decoder = Decoder(*(part for w, b in layers for part in (w / w.shape[1] ** 0.5, b)))
    draws = "midpoint"
    if golden["variants"][variant]["importance_draws"] == "0.5 everywhere":
        draws = tuple(torch.full((2, 36, count), 0.5) for count in (coarse, fine))
    out = render_rays(
        t["planes"],
        origins,
        directions,
        decoder,
        plane_axes="official",
        ray_start=options["ray_start"],
        ray_end=options["ray_end"],
        box_warp=options["box_warp"],
        num_coarse=coarse,
        num_fine=fine,
        disparity=options["disparity_space_sampling"],
        white_back=options.get("white_back", False),
        draws=draws,
        impl=impl,
    )
    stats = golden["variants"][variant]["features_stats"]
    assert list(out.features.shape) == stats["shape"]
    assert out.features.double().norm().item() == pytest.approx(stats["l2"], rel=5e-6)
    for name, actual in (("features", out.features[..., ::4]), ("depth", out.depth), ("weight_sum", out.weights)):
        expected = t[f"{variant}_{name}"]
        assert (actual - expected).abs().max() <= 5e-6 * expected.abs().max(), name


@pytest.mark.lengthy
def test_gradients_of_the_twin():
    s = scene(rays=3, channels=4, size=(5, 5), hidden=6, colors=2)
    s = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in s.items()}
    decoder = Decoder(*(part.double().requires_grad_() for part in s.pop("decoder")))
    planes = s.pop("planes").requires_grad_()

    def render(planes, *decoder):
        # Importance samples are left out: their positions carry no gradient although they depend on the planes.
        return render_rays(planes, decoder=Decoder(*decoder), num_coarse=6, num_fine=0, impl="reference", **s)

    assert torch.autograd.gradcheck(render, (planes, *decoder))


def test_only_hidden_samples_are_skipped(compiled_cpu):
    """Kernels skip samples behind an opaque wall; the result must stay as accurate as that of the reference."""
    s = scene(rays=16, density=1000.0)
    compiled, twin = (outputs_and_gradients(s, impl) for impl in ("compiled", "reference"))
    assert (compiled["weights"] - 1).abs().max() < 1e-5
    assert (compiled["d_planes"] != 0).any()
    assert_as_good_as_twin(compiled, twin, outputs_and_gradients(s, "reference", torch.float64))


def test_result_does_not_depend_on_threads(compiled_cpu):
    s = scene(rays=700, channels=20, size=(40, 30))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 7, 13):
            torch.set_num_threads(count)
            results.append(outputs_and_gradients(s, "compiled", num_coarse=12, num_fine=12))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in OUTPUTS)


def test_batch_elements_are_independent(compiled_cpu):
    s = scene(batch=2, rays=20)
    both = render_rays(**s, impl="compiled")
    for i in range(2):
        one = {k: v[i : i + 1] if isinstance(v, torch.Tensor) else v for k, v in s.items()}
        alone = render_rays(**one, impl="compiled")
        assert torch.equal(both.features[i], alone.features[0]) and torch.equal(both.weights[i], alone.weights[0])


@pytest.mark.parametrize("impl", ["compiled", "reference"])
def test_layouts(impl, compiled_cpu):
    s = scene(rays=20, channels=16)
    expected = render_rays(**s, impl=impl)
    last = s["planes"].permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    wide = s["planes"].repeat_interleave(2, -1)[..., ::2]
    flipped = s["directions"].flip(1).flip(1)
    for planes in (last, wide):
        assert not planes.is_contiguous()
        out = render_rays(**{**s, "planes": planes, "directions": flipped}, impl=impl)
        assert torch.equal(out.features, expected.features)


@pytest.mark.parametrize("impl", ["compiled", "reference"])
@pytest.mark.parametrize("sizes", [{"batch": 0}, {"rays": 0}])
def test_empty(impl, sizes, compiled_cpu):
    s = scene(**sizes)
    out = outputs_and_gradients(s, impl)
    n, r = s["origins"].shape[:2]
    assert out["features"].shape == (n, r, 32) and out["depth"].shape == out["weights"].shape == (n, r, 1)
    assert out["d_planes"].shape == s["planes"].shape and not out["d_w1"].any()


@pytest.mark.parametrize("impl", ["compiled", "reference"])
def test_inputs_are_not_modified(impl, compiled_cpu):
    s = scene(rays=8)
    tensors = [v for v in (*s.values(), *s["decoder"]) if isinstance(v, torch.Tensor)]
    before = [t.clone() for t in tensors]
    outputs_and_gradients(s, impl)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


@pytest.mark.parametrize("impl", ["compiled", "reference"])
@pytest.mark.parametrize("where", ["planes", "decoder", "origins"])
def test_nan_is_not_hidden(impl, where, compiled_cpu):
    s = scene(rays=4)
    if where == "decoder":
        s["decoder"] = s["decoder"]._replace(b1=s["decoder"].b1 * torch.nan)
    else:
        s[where] = s[where] * torch.nan
    out = render_rays(**s, impl=impl)
    assert out.features.isnan().all() and out.weights.isnan().all()


def test_random_draws_come_from_the_generator():
    s = scene(rays=6)

    def render(seed, draws="random"):
        return render_rays(**s, draws=draws, generator=torch.Generator().manual_seed(seed)).features

    assert torch.equal(render(1), render(1))
    assert not torch.equal(render(1), render(2))
    assert torch.equal(render(1, "midpoint"), render(2, "midpoint"))


def test_half_precision_planes(compiled_cpu):
    """All arithmetic is float32, whatever type the planes are stored in."""
    s = scene(rays=8)
    for dtype in (torch.float16, torch.bfloat16):
        low = {**s, "planes": s["planes"].to(dtype)}
        same = {**s, "planes": s["planes"].to(dtype).float()}
        for impl in ("compiled", "reference"):
            assert torch.equal(render_rays(**low, impl=impl).features, render_rays(**same, impl=impl).features)
        found, full = outputs_and_gradients(low, "compiled"), outputs_and_gradients(same, "compiled")
        assert found["d_planes"].dtype == dtype
        assert torch.equal(found["d_planes"], full["d_planes"].to(dtype))


def test_subnormal_numbers_count_as_zero(isa):
    """Kernels treat subnormal floats as zero, and the threads that they run on do not keep this mode."""
    s = scene(rays=700)
    planes = s["planes"].requires_grad_()
    features = render_rays(**s, impl="compiled").features
    (gradient,) = torch.autograd.grad(features, planes, torch.full_like(features, 1e-39))
    assert not gradient.any()
    # So many elements that every thread of torch gets some.
    assert (torch.full((1 << 20,), 1e-39) * 0.5 > 0).all()


def test_empty_space_like_twin(isa):
    """Far from a head, densities of a trained generator are so low that gradients of samples become subnormal."""
    s = scene(density=30.0)
    s["decoder"] = s["decoder"]._replace(b2=s["decoder"].b2 - 20)
    found, twin = (outputs_and_gradients(s, impl) for impl in ("compiled", "reference"))
    assert_as_good_as_twin(found, twin, outputs_and_gradients(s, "reference", torch.float64))


@pytest.mark.parametrize("impl", ["compiled", "reference"])
def test_autocast_changes_nothing(impl, compiled_cpu):
    s = scene(rays=8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = render_rays(**s, impl=impl)
    assert torch.equal(inside.features, render_rays(**s, impl=impl).features)


@pytest.mark.lengthy
def test_torch_compile(compiled_cpu):
    s = scene(rays=16, channels=8, size=(9, 9))

    def loss(planes):
        out = render_rays(**{**s, "planes": planes * 2}, num_coarse=8, num_fine=8, impl="compiled")
        return (out.features.square().mean() + out.depth.mean()) * 3

    compiled = torch.compile(loss, fullgraph=True)
    a, b = (s["planes"].clone().requires_grad_() for _ in range(2))
    expected, actual = loss(a), compiled(b)
    # The kernel is the same; the code fused around it rounds differently.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(actual, b)[0], torch.autograd.grad(expected, a)[0], rtol=1e-4, atol=1e-7
    )


def op_arguments(fine=3):
    s = scene(rays=5, channels=4, size=(6, 6), hidden=8, colors=3)
    near, far = torch.full((1, 5), 2.25), torch.full((1, 5), 3.3)
    decoder = [part.requires_grad_() for part in s["decoder"]]
    axes = [axis for pair in PLANE_AXES["official"] for axis in pair]
    tail = (None, None, axes, 1.0, 5, fine, False)
    return (s["planes"].requires_grad_(), s["origins"].contiguous(), s["directions"], near, far, *decoder, *tail)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # caused by opcheck
@pytest.mark.lengthy
def test_opcheck(compiled_cpu):
    torch.library.opcheck(torch.ops.eg3d_ops.render_rays.default, op_arguments())
    planes, origins, directions, _, _, *decoder = (t.detach() for t in op_arguments()[:9])
    axes = [axis for pair in PLANE_AXES["official"] for axis in pair]
    grads = torch.randn(1, 5, 3), torch.randn(1, 5), torch.randn(1, 5)
    depths = torch.linspace(2.3, 3.2, 8).expand(1, 5, 8).contiguous()
    torch.library.opcheck(
        torch.ops.eg3d_ops.render_rays_backward.default,
        (*grads, planes, origins, directions, *decoder, depths, axes, 1.0),
    )


def test_second_gradient_is_refused(compiled_cpu):
    s = scene(rays=4)
    planes = s.pop("planes").requires_grad_()
    out = render_rays(planes, **s, impl="compiled")
    (first,) = torch.autograd.grad(out.features.square().sum(), planes, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(first.square().sum(), planes)


def test_gradients_to_rays_exist_only_in_the_twin(compiled_cpu, caplog):
    s = scene(rays=4)
    s["directions"] = s["directions"].clone().requires_grad_()
    with pytest.raises(ValueError, match="no gradients to rays"):
        render_rays(**s, impl="compiled")
    (d,) = torch.autograd.grad(render_rays(**s, impl="auto").features.sum(), s["directions"])
    assert d.abs().sum() > 0
    with torch.no_grad():
        render_rays(**s, impl="compiled")


def test_float64_is_left_to_the_twin(compiled_cpu):
    s = scene(rays=4)
    s["planes"] = s["planes"].double()
    with pytest.raises(ValueError, match="no float64"):
        render_rays(**s, impl="compiled")
    assert render_rays(**s, impl="auto").features.dtype == torch.float64
