"""Tests of the ops in DistributedDataParallel: two processes give the gradients of one at equal global batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from eg3d_ops.bias_act import bias_act
from eg3d_ops.filters import setup_filter, upsample2d
from eg3d_ops.planes import Decoder
from eg3d_ops.render_rays import render_rays


class TinyRenderer(nn.Module):
    """A network that uses every op: the 2-D ops turn a latent into planes, and the renderer renders rays."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * 4 * 8 * 8, 6))
        self.bias = nn.Parameter(torch.randn(12))
        shapes = [(8, 4), (8,), (4, 8), (4,)]
        self.decoder = nn.ParameterList([torch.randn(shape) for shape in shapes])
        self.register_buffer("filter", setup_filter([1, 3, 3, 1]))

    def forward(self, z: Tensor) -> Tensor:  # [N, 6] -> [N]
        x = (z @ self.weight.t()).reshape(-1, 12, 8, 8)
        x = upsample2d(bias_act(x, self.bias, act="lrelu", impl="compiled"), self.filter, impl="compiled")
        origins = torch.tensor([0.0, 0.0, 2.7], device=z.device).expand(len(z), 9, 3)
        offsets = torch.linspace(-0.15, 0.15, 9, device=z.device)
        directions = torch.stack([offsets, offsets.flip(0), -torch.ones_like(offsets)], -1).expand(len(z), 9, 3)
        out = render_rays(
            x.reshape(-1, 3, 4, 16, 16),
            origins,
            directions,
            Decoder(*self.decoder),
            plane_axes="xy_yz_zx",
            ray_start=2.25,
            ray_end=3.3,
            num_coarse=6,
            num_fine=6,
            impl="compiled",
        )
        return out.features.square().mean((1, 2))


def gradients(module: nn.Module, z: Tensor) -> list[Tensor]:
    module(z).mean().backward()
    return [parameter.grad for parameter in module.parameters()]


def latents() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def worker(rank: int, folder: str, backend: str) -> None:
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.set_num_threads(1)
    module = nn.parallel.DistributedDataParallel(TinyRenderer().to(device))
    found = gradients(module, latents().chunk(2)[rank].to(device))
    torch.save([gradient.cpu() for gradient in found], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=pytest.mark.gpu)])
@pytest.mark.lengthy
def test_two_processes_give_the_gradients_of_one(compiled_cpu, tmp_path, backend):
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("NCCL needs a GPU for each of the two processes")
    mp.spawn(worker, (str(tmp_path), backend), nprocs=2)
    one = gradients(TinyRenderer(), latents())
    # Two half sums are added instead of one sum, which costs a few roundings of float32. Those of a GPU are others than
    # those of the CPU that computed `one`, and the samples of a ray move with them.
    tolerance = 1e-3 if backend == "nccl" else 1e-6
    for rank in (0, 1):
        two = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for a, b in zip(two, one, strict=True):
            torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=tolerance * b.abs().max().item())
