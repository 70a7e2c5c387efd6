"""Our generator against an official EG3D checkout, same weights, same inputs, in one run.

python -m benchmarks.generator --official PATH [--device cuda] [--batches 1 8] [--repeats 3]

PATH is a checkout of NVlabs/eg3d (the folder that holds `eg3d/`); nothing of it is part of this project. The full
FFHQ 512 configuration with random weights: seconds per new image, and per new view of a portrait whose planes are
kept, with peak memory and the largest difference of the two images.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Row, keep_freed_memory, peak_megabytes, save, side_by_side, table
from dreamportrait.generator.config import GeneratorConfig
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.rendering.cameras import camera_label, intrinsics_from_fov, pose

RESOLUTION = 128  # of the rendered image: ffhq512-128


def our_generator(device: str, precision: Any) -> TriPlaneGenerator:
    torch.manual_seed(0)
    config = GeneratorConfig(precision=precision, render_resolution=RESOLUTION)
    generator = TriPlaneGenerator(config).to(device).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.1)
    return generator


def official_generator(path: Path, ours: TriPlaneGenerator, device: str) -> Any:
    """The official class at the same configuration, with our weights: the names are the same."""
    if not (path / "eg3d" / "training" / "triplane.py").exists():
        raise SystemExit(f"--official {path}: no eg3d/training/triplane.py there; give a checkout of NVlabs/eg3d")
    sys.path.insert(0, str(path / "eg3d"))
    from training.triplane import TriPlaneGenerator as Official  # type: ignore[import-not-found]

    c = ours.config
    rendering = {
        "image_resolution": 512,
        "disparity_space_sampling": False,
        "clamp_mode": "softplus",
        "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
        "c_scale": 1.0,
        "c_gen_conditioning_zero": False,
        "superresolution_noise_mode": "none",
        "decoder_lr_mul": 1.0,
        "sr_antialias": True,
        "depth_resolution": c.num_coarse,
        "depth_resolution_importance": c.num_fine,
        "ray_start": c.ray_start,
        "ray_end": c.ray_end,
        "box_warp": c.box_warp,
        "white_back": False,
    }
    official = Official(
        z_dim=c.z_dim,
        c_dim=c.c_dim,
        w_dim=c.w_dim,
        img_resolution=512,
        img_channels=3,
        sr_num_fp16_res=4,
        mapping_kwargs={"num_layers": c.mapping_layers},
        rendering_kwargs=rendering,
        sr_kwargs={"channel_base": 32768, "channel_max": 512, "fused_modconv_default": "inference_only"},
        channel_base=c.channel_base,
        channel_max=c.channel_max,
        fused_modconv_default="inference_only",
        num_fp16_res=0,
        conv_clamp=None,
    )
    weights = {key: value for key, value in ours.state_dict().items() if key != "dataset_label_std"}
    official.load_state_dict(weights, strict=True)
    official.neural_rendering_resolution = RESOLUTION
    return official.to(device).eval().requires_grad_(False)


def inputs(batch: int, device: str) -> tuple[Tensor, Tensor]:
    z = torch.randn(batch, 512, generator=torch.Generator().manual_seed(1))
    camera = camera_label(pose(torch.linspace(1.3, 1.8, batch)), intrinsics_from_fov(18.837))
    return z.to(device), camera.to(device)


def passes(
    ours: TriPlaneGenerator, official: Any, batch: int, device: str
) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """Per case: the official pass and ours."""
    z, camera = inputs(batch, device)
    w = ours.map(z, camera)
    planes = ours.synthesize_planes(w)

    def official_image() -> Tensor:
        return official.synthesis(official.mapping(z, camera), camera, noise_mode="const")["image"]

    def official_view() -> Tensor:
        return official.synthesis(w, camera, noise_mode="const", use_cached_backbone=True)["image"]

    official.synthesis(w, camera, noise_mode="const", cache_backbone=True)
    return {
        "new image": {"official": official_image, "ours": lambda: ours(z, camera).image},
        "new view": {"official": official_view, "ours": lambda: ours.render(planes, camera, w=w).image},
    }


def largest_difference(ours: TriPlaneGenerator, official: Any, batch: int, device: str) -> float:
    """Of the two images when every random draw is 0.5: the only one both can be told to use."""
    z, camera = inputs(batch, device)
    half = tuple(torch.full((batch, RESOLUTION**2, 48), 0.5, device=device) for _ in range(2))
    image = ours(z, camera, draws=half).image

    def all_half(*shape: int, **options: Any) -> Tensor:
        return torch.full(shape, 0.5, device=options.get("device"))

    with mock.patch("torch.rand", all_half), mock.patch("torch.rand_like", lambda x, **_: torch.full_like(x, 0.5)):
        theirs = official.synthesis(official.mapping(z, camera), camera, noise_mode="const")["image"]
    return (image - theirs).abs().max().item()


def gigaflops(run: Callable[[], object], rays: int) -> float:
    """Of the convolutions and matrix products, and the decoder's 4160 products for each of 96 samples of a ray."""
    with FlopCounterMode(display=False) as counter:
        run()
    return (counter.get_total_flops() + rays * 96 * 2 * 4160) / 1e9


def run(path: Path, device: str, batches: list[int], repeats: int, precision: str) -> list[Row]:
    ours = our_generator(device, precision)
    official = official_generator(path, ours, device)
    rows: list[Row] = []
    for batch in batches:
        difference = largest_difference(ours, official, batch, device)
        for case, two in passes(ours, official, batch, device).items():
            flops = gigaflops(two["ours"], batch * RESOLUTION**2)
            timing = side_by_side(two["official"], two["ours"], repeats, device, warm_ups=1)
            rows.append(
                {
                    "case": case,
                    "batch": batch,
                    "s_per_image_official": timing["ms_reference"] / 1000 / batch,
                    "s_per_image_ours": timing["ms_compiled"] / 1000 / batch,
                    "ratio": timing["ratio"],
                    "MB_official": peak_megabytes(two["official"], device),
                    "MB_ours": peak_megabytes(two["ours"], device),
                    "GFLOP_per_image": flops / batch,
                    "GFLOPs_ours": flops / (timing["ms_compiled"] / 1000),
                    "largest_difference": difference,
                }
            )
            print(table(rows[-1:]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, metavar="PATH")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "float16", "bfloat16"), default=None)
    options = parser.parse_args()
    # The official code runs super-resolution in float16 on a GPU and in float32 on a CPU.
    precision = options.precision or ("float16" if options.device == "cuda" else "float32")
    keep_freed_memory()
    with torch.inference_mode():
        rows = run(options.official, options.device, options.batches, options.repeats, precision)
    print(table(rows))
    print("\nwrote", save("generator", options.device, {"precision": precision, "rows": rows}))


if __name__ == "__main__":
    main()
