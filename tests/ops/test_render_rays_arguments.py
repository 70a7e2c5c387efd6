"""Tests of the arguments that the renderer rejects, with any implementation."""

import pytest
import torch
from ray_scenes import scene

from eg3d_ops.planes import Decoder
from eg3d_ops.render_rays import render_rays

BAD = {
    "planes of rank 4": ({"planes": torch.zeros(1, 32, 8, 8)}, ValueError, "planes must have rank 5"),
    "integer planes": (
        {"planes": torch.zeros(1, 3, 32, 8, 8, dtype=torch.int32)},
        TypeError,
        "planes must be floating",
    ),
    "planes no tensor": ({"planes": [1.0]}, TypeError, "planes must be a torch.Tensor, got list"),
    "two planes": ({"planes": torch.zeros(1, 2, 32, 8, 8)}, ValueError, "planes has 2 planes"),
    "no texel": ({"planes": torch.zeros(1, 3, 32, 0, 8)}, ValueError, "at least one channel, row and column"),
    "batch mismatch": ({"planes": torch.zeros(2, 3, 32, 8, 8)}, ValueError, "N as in planes"),
    "origins of rank 2": ({"origins": torch.zeros(4, 3)}, ValueError, "origins must have rank 3"),
    "two coordinates": ({"origins": torch.zeros(1, 4, 2)}, ValueError, "origins must have shape"),
    "fewer directions": ({"directions": torch.ones(1, 3, 3)}, ValueError, "directions must have shape"),
    "unknown axes": ({"plane_axes": "xy"}, ValueError, "plane_axes='xy'"),
    "too few axes": ({"plane_axes": [(0, 1)]}, ValueError, "names 1"),
    "box_warp 0": ({"box_warp": 0}, ValueError, "box_warp must be positive"),
    "box_warp nan": ({"box_warp": float("nan")}, ValueError, "box_warp must be finite"),
    "limits reversed": ({"ray_start": 3.0, "ray_end": 2.0}, ValueError, "must be less than"),
    "half auto": ({"ray_start": "auto"}, ValueError, "either both 'auto' or neither"),
    "limit shape": ({"ray_start": torch.ones(1, 4)}, ValueError, "ray_start must have shape"),
    "limit type": ({"ray_start": None}, TypeError, "ray_start must be a number"),
    "disparity from 0": ({"ray_start": 0.0, "disparity": True}, ValueError, "must be positive with disparity"),
    "three coarse": ({"num_coarse": 3}, ValueError, "num_coarse must be at least 4"),
    "negative fine": ({"num_fine": -1}, ValueError, "num_fine must be at least 0"),
    "float count": ({"num_coarse": 8.0}, TypeError, "num_coarse must be an int"),
    "unknown draws": ({"draws": "middle"}, ValueError, "draws='middle'"),
    "draws no pair": ({"draws": 0.5}, TypeError, "draws must be"),
    "draws shape": ({"draws": (torch.rand(1, 4, 3), torch.rand(1, 4, 48))}, ValueError, r"draws\[0\] must have shape"),
    "other device": ({"planes": torch.zeros(1, 3, 32, 8, 8, device="meta")}, ValueError, "is on"),
    "unknown impl": ({"impl": "cuda"}, ValueError, "impl='cuda'"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("impl", ["auto", "reference"])
def test_bad_input(case, impl):
    wrong, error, message = BAD[case]
    with pytest.raises(error, match=message):
        render_rays(**{**scene(rays=4, size=(8, 8)), "impl": impl, **wrong})


@pytest.mark.parametrize("part", Decoder._fields)
def test_bad_decoder(part):
    s = scene(rays=4)
    s["decoder"] = s["decoder"]._replace(**{part: torch.zeros(3, 5)})
    with pytest.raises(ValueError, match=r"decoder\.\w\d must have shape"):
        render_rays(**s)
