"""Tests of one whole step of stage 2 in the paper's sizes: with shapes alone or, in the slow test, with numbers."""

import json
import os
import subprocess
import sys

import open_clip
import pytest
import torch
from full_size import SIZES, VIT_H, Networks, make_config, make_networks, make_step, run
from places import ROOT
from tiny_training import fit
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dreamportrait.systems.dreamportrait.config import Config
from eg3d_ops import _backend

# Super-resolution is trained without noise, so the weights for its noise strength are not used.
UNUSED = [f"generator.generator.superresolution.block{i}.conv{j}.noise_strength" for i in (0, 1) for j in (0, 1)]
SUPPORT = ROOT / "tests" / "support"


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture
def values_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip checks of camera and filter values, as torch.compile's tracing does: fake tensors have no values."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


@pytest.fixture
def compiled_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the compiled ops. Their fake kernels and gradients are Python, so no library is needed."""
    monkeypatch.setattr(_backend, "_resolve", lambda impl, device: True)


def without_storage(config: Config) -> Networks:
    with torch.device("meta"):
        return make_networks(SIZES["full"], config)


@pytest.mark.lengthy
def test_the_sizes_are_the_published_ones() -> None:
    networks = without_storage(make_config(2, 1, "float16"))
    assert count(networks.unet) == 865_910_724 and count(networks.vae) == 83_653_863
    with torch.device("meta"):
        whole = open_clip.CLIP(**{name: VIT_H[name] for name in ("embed_dim", "vision_cfg", "text_cfg")})
    assert count(whole) == 986_109_441
    shapes = {name: value.shape for name, value in whole.named_parameters() if not name.startswith("visual.")}
    own = {name: value.shape for name, value in networks.clip.named_parameters() if not name.startswith("visual.")}
    assert own == shapes and own["positional_embedding"] == (77, 1024)
    assert tuple(networks.portrait.adapters) == ("4", "8", "16", "32", "64", "128")
    assert networks.portrait.config.image_resolution == 512


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # from copy.deepcopy for the average
@pytest.mark.usefixtures("values_are_not_looked_at", "compiled_ops")
@pytest.mark.slow
def test_shapes_of_a_whole_step() -> None:
    half, single = torch.float16, torch.float32
    config = make_config(2, 1, "float16")
    networks = without_storage(config)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in networks:
            nn.Module.to_empty(network, device="cpu")
        module, data = make_step(networks, config)
        start = module.images
        weights = {name: value for name, value in module.named_parameters() if value.requires_grad}
        fit(module, data=[data])

    assert module.seen.shapes == {  # guidance runs each picture with and without its prompt
        "planes": (single, [2, 3, 32, 256, 256]),
        "image": (single, [2, 3, 512, 512]),
        "image_raw": (single, [2, 3, 128, 128]),
        "depth": (single, [2, 1, 128, 128]),
        "weights": (single, [2, 1, 128, 128]),
        "pictures": (single, [2, 3, 512, 512]),
        "moments": (single, [2, 8, 64, 64]),
        "noisy": (half, [4, 4, 64, 64]),
        "words": (half, [4, 77, 1024]),
        "logits": (single, [2, 1]),
    }
    assert {name: (loss.dtype, list(loss.shape)) for name, loss in module.losses.items()} == dict.fromkeys(
        ("generator", "guidance", "density", "discriminator", "mismatch", "r1"), (single, [])
    )
    gradients = module.seen.gradients
    assert sorted(weights.keys() - gradients.keys()) == UNUSED
    for name, gradient in gradients.items():
        assert (gradient.dtype, gradient.shape) == (weights[name].dtype, weights[name].shape), name
    assert module.images == start + 2


def test_a_small_step_is_real() -> None:
    found = run("small")
    assert found["no gradient"] == UNUSED and found["not finite"] == []
    assert found["losses"].keys() == {"generator", "guidance", "density", "discriminator", "mismatch", "r1"}
    assert all(0 < loss < float("inf") for loss in found["losses"].values())
    assert found["step, seconds"] > 0 and 0.1 < found["peak memory, GB"] < 24


@pytest.mark.slow
def test_a_whole_step_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    """Run a step with one picture in a separate process, so that the peak memory is that of the step."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
    done = subprocess.run(
        [sys.executable, SUPPORT / "full_size.py", "full"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\nstage 2, one picture: {found}")
    assert found["no gradient"] == UNUSED and found["not finite"] == []
    assert found["peak memory, GB"] < 24
