"""Stage 2: the mapping network learns to do from noise what the attribute mapper does from attributes.

Plain regression z -> w, without rendering. The code z determines the attributes, so pairs are free.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dreamportrait.generator import TriPlaneGenerator
from dreamportrait.generator.layers import FullyConnected
from dreamportrait.mini.attributes import is_held_out, read_code, sample_codes, to_vector
from dreamportrait.mini.eg3d.warm import AttributeMapper
from dreamportrait.mini.world import random_cameras
from dreamportrait.training.loop import cosine, fit

SEED = 4  # of the codes
SLOWNESS = 0.01  # the mapping network's lr_multiplier


def train(
    work: Path,
    generator: TriPlaneGenerator,
    mapper: AttributeMapper,
    *,
    steps: int,
    batch: int = 256,
    pairs: int = 60_000,
    lr: float = 0.3,
) -> float:
    """Trains the generator's mapping network in place and sets its average w; returns R^2 on unseen codes.

    Its layers are slow by design, their weights stored a hundred times too large: hence the learning rate.
    """
    z, w = _pairs(mapper, pairs)
    cameras = torch.from_numpy(random_cameras(4096, SEED))
    held = pairs // 20
    mapping = generator.backbone.mapping
    first = mapping.get_submodule("fc0")
    assert isinstance(first, FullyConnected)
    with torch.no_grad():
        first.weight[:, generator.config.z_dim :] = 0  # whose camera it is does not matter yet
    slow = [weight for name, weight in mapping.named_parameters() if not name.startswith("embed")]
    groups: list[dict[str, Any]] = [{"params": slow}, {"params": mapping.embed.parameters()}]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    spread = w.var(0).mean()
    mapping.w_avg.copy_(w.mean(0))

    def predict(z: Tensor) -> Tensor:
        camera = cameras[torch.randint(len(cameras), (len(z),))]
        return mapping(z, camera)

    def step(index: int) -> dict[str, Tensor]:
        chosen = torch.randint(held, pairs, (batch,))
        rate = cosine(index, steps, lr)
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, SLOWNESS * rate
        loss = (predict(z[chosen]) - w[chosen]).square().mean() / spread
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"unexplained": loss}

    fit(step, {"mapping": mapping, "optimizer": optimizer}, steps, work, seed=2, log_every=500, title="eg3d-map")
    with torch.no_grad():
        return 1 - float((predict(z[:held]) - w[:held]).square().mean() / spread)


@torch.no_grad()
def _pairs(mapper: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Codes without held-out pairs of attributes [count, Z_DIM] and their w [count, w_dim]."""
    codes = sample_codes(count + count // 4, SEED)
    faces = [read_code(z) for z in codes]
    kept = [i for i, (attributes, _) in enumerate(faces) if not is_held_out(attributes)][:count]
    vectors = np.stack([to_vector(*faces[i]) for i in kept])
    return torch.from_numpy(codes[kept]), mapper(torch.from_numpy(vectors))
