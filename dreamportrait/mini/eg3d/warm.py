"""Stage 1: the generator learns faces by regression, from attributes instead of noise.

A small network maps the attribute vector to w. The planes are rendered from the camera of a real picture and compared
with that picture. Adversarial training from scratch needs ten times the images and puts the background on a plane that
cuts through the face; regression yields solid heads after a minute.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.layers import FullyConnected
from dreamportrait.eg3d.triplane import Rendering, TriPlaneGenerator
from dreamportrait.geometry.rays import rays_from_label
from dreamportrait.miniworld.world import World
from dreamportrait.training.loop import Stateful, cosine, fit, set_lr
from dreamportrait.training.schedule import Ema, half_life

BACKGROUND_FROM = 2.8  # distance from the camera; heads are at 2.7 and 0.2 deep
DENSITY_GAIN = 6.0  # scales the decoder's initial density weights, so that surfaces form sooner


class AttributeMapper(nn.Module):
    """Map the attribute vector to w. It replaces the mapping network in this stage."""

    def __init__(self, in_features: int, w_dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(in_features, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2)
        )
        self.out = nn.Linear(hidden, w_dim)

    def forward(self, vector: Tensor) -> Tensor:  # [N, V] -> [N, w_dim]
        return self.out(self.net(vector))


class Student(nn.Module):
    """The networks that this stage trains: the generator and the attribute mapper."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.generator = TriPlaneGenerator(config)
        self.mapper = AttributeMapper(config.z_dim, config.w_dim)
        last = self.generator.decoder.net[2]
        assert isinstance(last, FullyConnected)
        with torch.no_grad():
            last.weight[0] *= DENSITY_GAIN

    def forward(self, vector: Tensor, camera: Tensor, resolution: int | None = None) -> Rendering:
        w = self.mapper(vector)[:, None].expand(-1, self.generator.num_ws, -1)
        planes = self.generator.synthesize_planes(w, noise="none")
        return self.generator.render(planes, camera, w=w, resolution=resolution, draws="random")

    def along_rays(self, vector: Tensor, camera: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours [N, M, 3] before super-resolution, and depth [N, M, 1], of the pixels `chosen` [N, M]."""
        g, c = self.generator, self.generator.config
        planes = g.synthesize_planes(self.mapper(vector)[:, None].expand(-1, g.num_ws, -1), noise="none")
        origins, directions = (
            rays.gather(1, chosen[..., None].expand(-1, -1, 3)) for rays in rays_from_label(camera, c.render_resolution)
        )
        features, depth, _ = g.render_rays(planes, origins, directions, draws="random")
        return features[..., :3], depth


class Batch:
    """The pictures of a world with these indices, with depth, cameras and attribute vectors, as tensors."""

    def __init__(self, world: World, indices: Tensor, device: torch.device | str = "cpu") -> None:
        i = indices.numpy()
        self.image = torch.from_numpy(world.images[i]).to(device).float() / 127.5 - 1  # [N, 3, R, R]
        self.depth = torch.from_numpy(world.depth[i]).to(device).float()[:, None]  # [N, 1, R, R]
        self.camera = torch.from_numpy(world.cameras[i]).to(device)  # [N, 25]
        self.vector = torch.from_numpy(world.vectors[i]).to(device)  # [N, V]


def train(
    work: Path, world: World, student: Student, *, steps: int, resolution: int, batch: int = 8, lr: float = 2.5e-3
) -> Student:
    """Train on views rendered at `resolution` and return the running average."""
    average = Ema(student)
    device = student.mapper.out.weight.device
    optimizer = torch.optim.Adam(student.parameters(), lr, betas=(0.9, 0.99))

    def step(index: int) -> dict[str, Tensor]:
        real = Batch(world, torch.randint(len(world), (batch,)), device)
        losses = regression_losses(student(real.vector, real.camera, resolution), real)
        set_lr(optimizer, cosine(index, steps, lr, warmup=50))
        optimizer.zero_grad(set_to_none=True)
        (losses["image"] + 0.5 * losses["raw"] + losses["depth"]).backward()
        optimizer.step()
        average.update(student, half_life(batch, min(4000, 0.1 * batch * (index + 1))))
        return losses

    state: dict[str, Stateful] = {"student": student, "average": average, "optimizer": optimizer}
    fit(step, state, steps, work, seed=1, save_every=500, log_every=100, title="eg3d-warm")
    assert isinstance(average.module, Student)
    return average.module


def regression_losses(fake: Rendering, real: Batch) -> dict[str, Tensor]:
    """Return the colour and depth losses. Colour errors weigh more in detailed areas, so that small features count."""
    size = fake.image_raw.shape[-1]
    raw = F.interpolate(real.image, (size, size), mode="area")
    depth = F.interpolate(real.depth, (size, size), mode="nearest-exact")
    return {
        "image": (detail_weight(real.image) * (fake.image - real.image).abs()).mean(),
        "raw": (detail_weight(raw) * (fake.image_raw - raw).abs()).mean(),
        "depth": depth_error(fake.depth, depth).mean(),
    }


def depth_error(fake: Tensor, real: Tensor) -> Tensor:  # of any shape; real: 0 where only background is seen
    """Return the difference of depths. The background may lie anywhere behind the head."""
    return torch.where(real > 0, (fake - real).abs(), (BACKGROUND_FROM - fake).relu())


def detail_weight(image: Tensor) -> Tensor:
    """Return the weight of each pixel: 0.25, plus 0.75 times its local contrast relative to the picture's mean."""
    smooth = F.avg_pool2d(image, 7, 1, 3, count_include_pad=False)
    contrast = (image - smooth).abs().mean(1, keepdim=True)
    return 0.25 + 0.75 * contrast / contrast.mean((1, 2, 3), keepdim=True).clamp(min=1e-3)
