"""A whole training step on a GPU, and on a CPU with the compiled operations, against the PyTorch implementations."""

import pytest
from devices import on_devices
from tiny_training import Recorder, batch, config, fit, module
from torch import Tensor

import eg3d_ops
from benchmarks.agreement import same_draws

ALIGN = [{"name": "align", "images": 8, "guidance": True}]


def two_steps(device: str) -> tuple[list[dict[str, float]], list[dict[str, Tensor]], dict[str, Tensor]]:
    """Return losses and gradients of two steps, and the weights after them. The first has all regularisers."""
    made, record = module(config(stages=ALIGN)), Recorder()
    with same_draws():
        fit(made, record, data=[batch(seed=0), batch(seed=1)], accelerator="gpu" if device == "cuda" else "cpu")
    gradients = [{name: g.cpu() for name, g in each.items()} for each in record.gradients]
    return record.losses, gradients, {name: value.cpu() for name, value in made.state_dict().items()}


@on_devices
@pytest.mark.lengthy
def test_two_steps(device: str, compiled_cpu: object) -> None:
    eg3d_ops.set_backend("reference")
    expected = two_steps("cpu")
    eg3d_ops.set_backend("auto")
    found = two_steps(device)
    assert {"r1", "density", "guidance", "generator", "discriminator"} <= found[0][0].keys()
    for ours, theirs in zip(found[0], expected[0], strict=True):
        for name, loss in theirs.items():
            # Differences of density are nearly equal numbers, of which rounding is a larger part.
            assert ours[name] == pytest.approx(loss, rel=1e-2 if name == "density" else 1e-3, abs=1e-6), name
    first, same = found[1][0], expected[1][0]  # later ones start from weights that Adam has moved by signs of rounding
    assert first.keys() == same.keys()
    for name, gradient in same.items():
        assert (first[name] - gradient).norm() <= 1e-2 * gradient.norm() + 1e-7, name
    assert all(value.isfinite().all() for value in found[2].values() if value.is_floating_point())
    moved = [name for name, value in found[2].items() if not value.equal(module(config()).state_dict()[name])]
    assert {name.split(".")[0] for name in moved} >= {"generator", "critic"}
