"""The fused tri-plane renderer. It takes rays and returns composited features, depth and opacity.

`render_rays` places coarse samples, looks features up on the planes, decodes them, places fine samples
where the coarse ones have weight, and composites all samples. The compiled version is one kernel family that
keeps samples in registers and cache; `_render_rays` is the reference implementation in plain PyTorch.
"""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._backend import use_compiled
from ._checks import check_device, check_int, check_number, check_shape, check_tensor
from ._library import LIBRARY, NAMESPACE, constant_when_traced, define
from .marching import RaySums, RenderedRays, finish, interval_weights, march
from .planes import Decoder, PlaneAxes, decode, parse_plane_axes, sample_planes
from .sampling import auto_limits, importance_depths, stratified_depths

logger = logging.getLogger("eg3d_ops")

Limit = float | str | Tensor
Draws = str | tuple[Tensor, Tensor]

# Limits of the CUDA kernels, set by shared memory and registers. csrc/cuda/render.h has the same numbers.
CUDA_LIMITS = {"channels": 32, "hidden units": 64, "colours": 32, "samples per ray": 256, "planes": 8}


def render_rays(
    planes: Tensor,  # [N, P, C, H, W]
    origins: Tensor,  # [N, R, 3]
    directions: Tensor,  # [N, R, 3]
    decoder: Decoder,
    *,
    plane_axes: str | Sequence[Sequence[int]],
    ray_start: Limit,
    ray_end: Limit,
    box_warp: float = 1.0,
    num_coarse: int = 48,
    num_fine: int = 48,
    disparity: bool = False,
    white_back: bool = False,
    draws: Draws = "midpoint",
    generator: torch.Generator | None = None,
    impl: str = "auto",
) -> RenderedRays:
    """Render R rays for each of the N batch elements.

    plane_axes  "official", "xy_yz_zx" or pairs of axes; see `planes.PLANE_AXES`. There is no default, because
        wrong axes render noise.
    ray_start, ray_end  numbers, tensors [N, R, 1], or both "auto": the depths where the ray enters and leaves the box.
    draws  "midpoint": deterministic; each stratified draw is 0.5, importance draw j of F is (j + 0.5) / F.
        "random": uniform draws from `generator`. A pair of tensors: the draws themselves, [N, R, num_coarse]
        and [N, R, num_fine].
    impl  "auto", "compiled" or "reference". Gradients with respect to planes and decoder always exist. Gradients
        with respect to rays exist only in the reference, which "auto" uses if they are required.

    Results are the same in every run. So are the gradients, except those of the planes on a GPU: they are summed by
    atomic additions in an order that varies, which changes them by rounding.
    torch.use_deterministic_algorithms(True) makes that backward pass an error.
    """
    axes = parse_plane_axes(plane_axes)
    decoder = Decoder(*decoder)
    _check_inputs(planes, origins, directions, decoder, axes)
    _check_numbers(box_warp, num_coarse, num_fine)
    dtype = torch.promote_types(planes.dtype, torch.float32)
    origins, directions = origins.to(dtype), directions.to(dtype)
    near, far = _limits(ray_start, ray_end, origins, directions, box_warp, disparity)
    coarse_draws, fine_draws = _draws(draws, origins, num_coarse, num_fine, generator)
    compiled = _runs_compiled(impl, planes, (origins, directions, near, far), decoder, num_coarse + num_fine)
    sums = (_compiled if compiled else _render_rays)(
        planes,
        origins,
        directions,
        near,
        far,
        decoder,
        coarse_draws=coarse_draws,
        fine_draws=fine_draws,
        axes=axes,
        box_warp=float(box_warp),
        num_coarse=num_coarse,
        num_fine=num_fine,
        disparity=bool(disparity),
    )
    return finish(sums, white_back)


def _render_rays(
    planes: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,  # [N, R, 1]
    far: Tensor,  # [N, R, 1]
    decoder: Decoder,
    coarse_draws: Tensor | None,  # [N, R, S]; None: midpoint
    fine_draws: Tensor | None,  # [N, R, F]
    axes: PlaneAxes,
    box_warp: float,
    num_coarse: int,
    num_fine: int,
    disparity: bool,
) -> RaySums:
    """Render in plain PyTorch, with all samples of all rays at once."""
    planes = planes.to(origins.dtype)
    decoder = Decoder(*(part.to(origins.dtype) for part in decoder))

    def evaluate(depths: Tensor) -> tuple[Tensor, Tensor]:  # [N, R, K] -> density [N, R, K], colour [N, R, K, Co]
        n, r, k = depths.shape
        points = origins[:, :, None] + depths[..., None] * directions[:, :, None]  # [N, R, K, 3]
        density, color = decode(sample_planes(planes, points.reshape(n, r * k, 3), axes, box_warp), decoder)
        return density.reshape(n, r, k), color.reshape(n, r, k, color.shape[-1])

    with torch.autocast(planes.device.type, enabled=False):  # geometry and decoder never run in half precision
        depths = stratified_depths(near, far, num_coarse, 0.5 if coarse_draws is None else coarse_draws, disparity)
        density, color = evaluate(depths)
        if num_fine > 0:
            if fine_draws is None:
                midpoints = (torch.arange(num_fine, device=depths.device, dtype=depths.dtype) + 0.5) / num_fine
                fine_draws = midpoints.expand(*depths.shape[:-1], num_fine)
            fine = importance_depths(depths, interval_weights(density, depths), fine_draws)
            fine_density, fine_color = evaluate(fine)
            depths, order = torch.cat([depths, fine], -1).sort(-1)
            density = torch.cat([density, fine_density], -1).gather(-1, order)
            color = torch.cat([color, fine_color], -2).gather(
                -2, order[..., None].expand(*order.shape, color.shape[-1])
            )
        return march(color, density, depths)


def _compiled(
    planes: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    decoder: Decoder,
    coarse_draws: Tensor | None,
    fine_draws: Tensor | None,
    axes: PlaneAxes,
    box_warp: float,
    num_coarse: int,
    num_fine: int,
    disparity: bool,
) -> RaySums:
    """Render with the compiled op. Arguments and result are those of `_render_rays`."""
    if planes.device.type == "cpu":
        planes = planes.float()  # the CPU kernels take only float32
    color, depth, weight, depths = torch.ops.eg3d_ops.render_rays(
        planes,
        origins,
        directions,
        near.squeeze(-1),
        far.squeeze(-1),
        *(part.float() for part in decoder),
        coarse_draws=coarse_draws,
        fine_draws=fine_draws,
        axes=[axis for pair in axes for axis in pair],
        box_warp=box_warp,
        num_coarse=num_coarse,
        num_fine=num_fine,
        disparity=disparity,
    )
    return RaySums(color, depth[..., None], weight[..., None], depths.detach())


def _runs_compiled(impl: str, planes: Tensor, rays: tuple[Tensor, ...], decoder: Decoder, num_samples: int) -> bool:
    """Return whether compiled code runs this call. If it cannot, "compiled" raises and "auto" uses the reference."""
    if not use_compiled(impl, planes.device):
        return False
    reason = _beyond_compiled(planes, rays, decoder, num_samples)
    if reason and impl == "compiled":
        raise ValueError(f"{reason}; use impl='reference' or 'auto'")
    if reason:
        _log_once(reason)
    return not reason


def _beyond_compiled(planes: Tensor, rays: tuple[Tensor, ...], decoder: Decoder, num_samples: int) -> str:
    """Return why the compiled renderer cannot run this call, or an empty string if it can."""
    if planes.dtype == torch.float64:
        return "the compiled renderer has no float64"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in rays):
        return "the compiled renderer has no gradients to rays (origins, directions, ray_start, ray_end)"
    if planes.device.type == "cuda":
        sizes = (planes.shape[2], decoder.w1.shape[0], decoder.w2.shape[0] - 1, num_samples, planes.shape[1])
        for (what, limit), size in zip(CUDA_LIMITS.items(), sizes, strict=True):
            if size > limit:
                return f"the compiled CUDA renderer takes at most {limit} {what}, got {size}"
    return ""


_logged: set[str] = set()


@constant_when_traced
def _log_once(reason: str) -> None:
    if reason not in _logged:
        _logged.add(reason)
        logger.warning("render_rays uses the PyTorch implementation: %s", reason)


# Arguments.


def _check_inputs(planes: Tensor, origins: Tensor, directions: Tensor, decoder: Decoder, axes: PlaneAxes) -> None:
    check_tensor("planes", planes, 5, "[N, P, C, H, W]")
    n, p, c, h, w = planes.shape
    if p != len(axes):
        raise ValueError(f"planes has {p} planes (shape {list(planes.shape)}) but plane_axes names {len(axes)}: {axes}")
    if min(c, h, w) < 1:
        raise ValueError(f"planes must have at least one channel, row and column, got shape {list(planes.shape)}")
    check_tensor("origins", origins, 3, "[N, R, 3]")
    check_shape("origins", origins, [n, origins.shape[1], 3], "[N, R, 3], N as in planes")
    check_tensor("directions", directions)
    check_shape("directions", directions, origins.shape, "as origins")
    w1 = check_tensor("decoder.w1", decoder.w1, 2, "[Hd, C]")
    check_shape("decoder.w1", w1, [w1.shape[0], c], "[Hd, C], C channels as in planes")
    w2 = check_tensor("decoder.w2", decoder.w2, 2, "[1+Co, Hd]")
    check_shape("decoder.w2", w2, [w2.shape[0], w1.shape[0]], "[1+Co, Hd], Hd as in decoder.w1")
    if w2.shape[0] < 2:
        raise ValueError(f"decoder.w2 must have a density row and at least one colour row, got shape {list(w2.shape)}")
    check_shape("decoder.b1", check_tensor("decoder.b1", decoder.b1), w1.shape[:1], "[Hd] as decoder.w1")
    check_shape("decoder.b2", check_tensor("decoder.b2", decoder.b2), w2.shape[:1], "[1+Co] as decoder.w2")
    check_device("origins", origins, "planes", planes)
    check_device("directions", directions, "planes", planes)
    for name, value in decoder._asdict().items():
        check_device(f"decoder.{name}", value, "planes", planes)


def _check_numbers(box_warp: float, num_coarse: int, num_fine: int) -> None:
    if check_number("box_warp", box_warp) <= 0:
        raise ValueError(f"box_warp must be positive (the side of the box), got {box_warp}")
    check_int("num_fine", num_fine, 0)
    # Importance sampling drops the first and the last of the S - 1 weights; at least one must remain.
    check_int("num_coarse", num_coarse, 4 if num_fine else 2)


def _limits(
    start: Limit, end: Limit, origins: Tensor, directions: Tensor, box_warp: float, disparity: bool
) -> tuple[Tensor, Tensor]:
    """Return near and far depth of every ray: 2 x [N, R, 1]."""
    if isinstance(start, str) or isinstance(end, str):
        if not (isinstance(start, str) and isinstance(end, str) and start == end == "auto"):
            raise ValueError(f"ray_start={start!r}, ray_end={end!r}: either both 'auto' or neither")
        return auto_limits(origins, directions, box_warp)
    if not isinstance(start, Tensor) and not isinstance(end, Tensor):
        if check_number("ray_start", start) >= check_number("ray_end", end):
            raise ValueError(f"ray_start={start} must be less than ray_end={end}")
        if disparity and start <= 0:
            raise ValueError(f"ray_start={start} must be positive with disparity=True: samples are even in 1/depth")
    return _limit("ray_start", start, origins), _limit("ray_end", end, origins)


def _limit(name: str, value: float | Tensor, origins: Tensor) -> Tensor:
    shape = [*origins.shape[:2], 1]
    if not isinstance(value, Tensor):
        return origins.new_full(shape, check_number(name, value))
    check_shape(name, check_tensor(name, value), shape, "[N, R, 1] as origins")
    return check_device(name, value, "origins", origins).to(origins.dtype)


def _draws(
    draws: Draws, origins: Tensor, num_coarse: int, num_fine: int, generator: torch.Generator | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the draws [N, R, S] and [N, R, F], or two None for the deterministic ones."""
    n, r, _ = origins.shape
    if isinstance(draws, str):
        if draws == "midpoint":
            return None, None
        if draws == "random":
            u = torch.rand(n, r, num_coarse + num_fine, device=origins.device, dtype=origins.dtype, generator=generator)
            return u[..., :num_coarse].contiguous(), u[..., num_coarse:].contiguous()
        raise ValueError(f"draws={draws!r}: must be 'midpoint', 'random' or a pair of tensors")
    if not (isinstance(draws, tuple) and len(draws) == 2):
        raise TypeError(f"draws must be 'midpoint', 'random' or a pair of tensors, got {type(draws).__name__}")
    coarse, fine = draws
    check_shape("draws[0]", check_tensor("draws[0]", coarse), [n, r, num_coarse], "[N, R, num_coarse]")
    check_shape("draws[1]", check_tensor("draws[1]", fine), [n, r, num_fine], "[N, R, num_fine]")
    check_device("draws[0]", coarse, "origins", origins)
    check_device("draws[1]", fine, "origins", origins)
    return coarse.to(origins.dtype).contiguous(), fine.to(origins.dtype).contiguous()


# Registration.

define(
    "render_rays(Tensor planes, Tensor origins, Tensor directions, Tensor near, Tensor far, "
    "Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor? coarse_draws, Tensor? fine_draws, "
    "int[] axes, float box_warp, int num_coarse, int num_fine, bool disparity) "
    "-> (Tensor color, Tensor depth, Tensor weight, Tensor depths)"
)
define(
    "render_rays_backward(Tensor d_color, Tensor d_depth, Tensor d_weight, Tensor planes, Tensor origins, "
    "Tensor directions, Tensor w1, Tensor b1, Tensor w2, Tensor b2, Tensor depths, int[] axes, float box_warp) "
    "-> (Tensor d_planes, Tensor d_w1, Tensor d_b1, Tensor d_w2, Tensor d_b2)"
)


@torch.library.register_fake(f"{NAMESPACE}::render_rays", lib=LIBRARY)
def _(*inputs: Any) -> tuple[Tensor, ...]:
    origins, w2, (num_coarse, num_fine) = inputs[1], inputs[7], inputs[13:15]
    n, r, _ = origins.shape
    shapes = ([n, r, w2.shape[0] - 1], [n, r], [n, r], [n, r, num_coarse + num_fine])
    return tuple(origins.new_empty(shape) for shape in shapes)


@torch.library.register_fake(f"{NAMESPACE}::render_rays_backward", lib=LIBRARY)
def _(*inputs: Any) -> tuple[Tensor, ...]:
    planes, w1, b1, w2, b2 = inputs[3], *inputs[6:10]
    return tuple(inputs[10].new_empty(like.shape) for like in (planes, w1, b1, w2, b2))


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    planes, origins, directions, _, _, *decoder = inputs[:9]
    ctx.axes, ctx.box_warp = inputs[11:13]
    ctx.save_for_backward(planes, origins, directions, *decoder, output[3])


def _backward(ctx, d_color, d_depth, d_weight, d_depths):  # type: ignore[no-untyped-def]
    *inputs, depths = ctx.saved_tensors
    _refuse_if_deterministic(inputs[0])
    d_planes, *d_decoder = torch.ops.eg3d_ops.render_rays_backward(
        d_color, d_depth, d_weight, *inputs, depths, ctx.axes, ctx.box_warp
    )
    return d_planes.to(inputs[0].dtype), None, None, None, None, *d_decoder, *(None,) * 7


def _refuse_if_deterministic(planes: Tensor) -> None:
    """Raise or warn, as torch.use_deterministic_algorithms demands, if the gradient of these planes varies."""
    if planes.device.type != "cuda" or not torch.are_deterministic_algorithms_enabled():
        return
    message = (
        "the gradient of render_rays to planes on a GPU is summed by atomic additions in an order that varies, "
        "but torch.use_deterministic_algorithms(True) was called; call it with warn_only=True, or train on a CPU"
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(message)
    warnings.warn(message, stacklevel=2)


def _no_second_gradient(ctx, *grads):  # type: ignore[no-untyped-def]
    raise NotImplementedError("render_rays is differentiable once; use impl='reference' for second gradients")


torch.library.register_autograd(f"{NAMESPACE}::render_rays", _backward, setup_context=_setup_context, lib=LIBRARY)
torch.library.register_autograd(f"{NAMESPACE}::render_rays_backward", _no_second_gradient, lib=LIBRARY)
