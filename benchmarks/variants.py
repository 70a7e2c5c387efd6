"""A generator without gradients, with parts of its inference path replaced by what they improve on.

official             the official code, with the same weights; full size only
plain PyTorch        our networks without compiled operations, with weights for each sample
weights per sample   the compiled operations, with weights for each sample: the arithmetic of a training step
separate operations  the inference path with neither of its two operations: multiplications, additions, bias_act
direct convolutions  the inference path without styled_conv3x3, with modulated_lrelu behind PyTorch's convolutions
inference            the inference path as it is
bfloat16             the inference path with all convolutions from 8 x 8 on in bfloat16
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import eg3d_ops
from benchmarks import images
from benchmarks.measure import Row, table
from dreamportrait.core.timing import seconds
from dreamportrait.eg3d.triplane import TriPlaneGenerator
from dreamportrait.mini import from_pretrained

Passes = dict[str, Callable[[], Tensor]]  # case -> function that makes one image [1, 3, R, R]
SYNTHESIS = "dreamportrait.eg3d.synthesis"
PLAIN = "plain PyTorch"


def run(size: str, official_path: Path | None, device: str, repeats: int) -> list[Row]:
    """Measure and print all variants of a size. `official_path` None: without the official code."""
    generator = images.our_generator(device, "float32") if size == "full" else mini_generator(device)
    with torch.inference_mode():  # the networks are older: tensors made inside cannot be checked for changes
        passes = passes_of(generator, device)
        if official_path is not None and size == "full":
            passes = official_passes(generator, official_path, device) | passes
        rows = [{"size": size} | row for case in passes[PLAIN] for row in measure(case, passes, device, repeats)]
    print(table(rows), flush=True)
    return rows


def mini_generator(device: str) -> TriPlaneGenerator:
    return from_pretrained("mini/eg3d").generator.to(device).eval().requires_grad_(False)


def passes_of(generator: TriPlaneGenerator, device: str) -> dict[str, Passes]:  # variant -> passes
    found = {
        name: {case: within(variant, each) for case, each in images.our_passes(generator, 1, device).items()}
        for name, variant in VARIANTS.items()
    }
    return found | {"bfloat16": images.our_passes(in_bfloat16(generator), 1, device)}


def official_passes(generator: TriPlaneGenerator, path: Path, device: str) -> dict[str, Passes]:
    from benchmarks import official  # needs the packages of training, which a machine for the ops may lack

    official.find(path)
    return {"official": images.official_passes(official.make_generator(generator, device), 1, device)}


def in_bfloat16(generator: TriPlaneGenerator) -> TriPlaneGenerator:
    """Return a copy whose convolutions run in bfloat16 as far as its configuration allows."""
    resolutions = generator.config.plane_resolution.bit_length()
    config = replace(generator.config, precision="bfloat16", num_low_precision=resolutions, sr_low_precision=True)
    copy = TriPlaneGenerator(config).to(next(generator.parameters()).device)
    copy.load_state_dict(generator.state_dict())
    return copy.eval().requires_grad_(False)


# ----- Variants -------------------------------------------------------------------------------------------


def within(variant: Callable[[], AbstractContextManager], run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def inside() -> Tensor:
        with variant():
            return run()

    return inside


@contextmanager
def plain_pytorch() -> Iterator[None]:
    before = eg3d_ops.backend()
    eg3d_ops.set_backend("reference")
    try:
        with weights_per_sample():
            yield
    finally:
        eg3d_ops.set_backend(before)


@contextmanager
def weights_per_sample() -> Iterator[None]:
    with mock.patch(f"{SYNTHESIS}.infers", return_value=False), mock.patch(f"{SYNTHESIS}.forget"):  # for the others
        yield


def direct_convolutions() -> AbstractContextManager:
    def kind(x: Tensor, weight: Tensor, up: int) -> str:
        return "transposed" if up > 1 else "direct"

    return mock.patch(f"{SYNTHESIS}.kind_of_convolution", kind)


def separate_operations() -> AbstractContextManager:
    return mock.patch(f"{SYNTHESIS}.modulated_lrelu", one_by_one)


@contextmanager
def neither_operation() -> Iterator[None]:
    with direct_convolutions(), separate_operations():
        yield


def one_by_one(
    x: Tensor, scale: Tensor, b: Tensor, noise: Tensor | None, next_scale: Tensor | None, clamp: float | None
) -> Tensor:
    """Compute modulated_lrelu by operations that exist without it, in place where possible."""
    x = x.mul_(scale.to(x.dtype)[:, :, None, None])
    if noise is not None:
        x = x.add_(noise.to(x.dtype))
    x = eg3d_ops.bias_act(x, b, act="lrelu", clamp=clamp)
    return x if next_scale is None else x.mul_(next_scale.to(x.dtype)[:, :, None, None])


VARIANTS: dict[str, Callable[[], AbstractContextManager]] = {
    PLAIN: plain_pytorch,
    "weights per sample": weights_per_sample,
    "neither operation": neither_operation,
    "no styled_conv3x3": direct_convolutions,
    "no modulated_lrelu": separate_operations,
    "inference": nullcontext,
}


# ----- Measurement ----------------------------------------------------------------------------------------


def measure(case: str, passes: dict[str, Passes], device: str, repeats: int) -> list[Row]:
    """Return the median times of each variant, and the medians of its ratios to the first variant in the same round.

    On a CPU, also those of the processor's time of all threads, which other work on the machine changes less.
    """
    runs = {name: each[case] for name, each in passes.items()}
    pictures = {name: seeded(run) for name, run in runs.items()}  # also loads libraries and prepares weights
    rounds = [{name: times(run, device) for name, run in runs.items()} for _ in range(repeats)]
    first = next(iter(runs))

    def row(name: str) -> Row:
        found: Row = {"case": case, "variant": name}
        for clock in rounds[0][name]:
            here = [each[name][clock] for each in rounds]
            ratios = [each[first][clock] / each[name][clock] for each in rounds]
            found |= {clock: statistics.median(here), f"{clock}, fastest": min(here)}
            found |= {f"{clock}, ratio": statistics.median(ratios)}
        return found | {"dB to plain": psnr(pictures[name], pictures[PLAIN])}

    return [row(name) for name in runs]


def times(run: Callable[[], Tensor], device: str) -> dict[str, float]:
    before = time.process_time()
    wall = seconds(run, device)
    return {"s": wall} | ({"CPU s": time.process_time() - before} if device == "cpu" else {})


def seeded(run: Callable[[], Tensor]) -> Tensor:
    """Return the picture for draws of samples along rays that are the same for all variants of our generator."""
    torch.manual_seed(7)
    return run()


def psnr(picture: Tensor, other: Tensor) -> float | None:  # [1, 3, R, R] in [-1, 1] -> decibels; None = equal
    error = (picture.double() - other.double()).square().mean().item()
    return 10 * math.log10(4 / error) if error else None
