"""The mapping network, which maps a latent and a camera to w."""

import torch
from torch import Tensor, nn

from dreamportrait.eg3d.conv import normalize_2nd_moment
from dreamportrait.eg3d.layers import FullyConnected


class MappingNetwork(nn.Module):
    """Concatenates normalised z and the normalised embedding of c, and applies `num_layers` slowly learning layers.

    With z_dim 0 there is no latent: the discriminator maps only its camera.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_layers: int,
        track_average: bool,
        width: int | None = None,  # width of hidden layers. None = w_dim
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_layers = z_dim, c_dim, num_layers
        self.embed = FullyConnected(c_dim, w_dim)
        features = [z_dim + w_dim] + [width or w_dim] * (num_layers - 1) + [w_dim]
        for i in range(num_layers):
            layer = FullyConnected(features[i], features[i + 1], activation="lrelu", lr_multiplier=0.01)
            self.add_module(f"fc{i}", layer)
        if track_average:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor) -> Tensor:  # [N, z_dim], [N, c_dim] -> [N, w_dim]
        x = normalize_2nd_moment(self.embed(c.float()))
        if z is not None:
            x = torch.cat([normalize_2nd_moment(z.float()), x], dim=1)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x

    @torch.no_grad()
    def update_average(self, w: Tensor, decay: float = 0.998) -> None:
        """Update the running mean of w [N, w_dim] in training. Truncation moves w towards this mean."""
        self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, decay))


def truncate(w: Tensor, w_avg: Tensor, psi: float, cutoff: int | None) -> Tensor:
    """Move the first `cutoff` entries of w [N, num_ws, w_dim] towards the average. None = all entries."""
    if psi == 1:
        return w
    count = w.shape[1] if cutoff is None else cutoff
    return torch.cat([w_avg.lerp(w[:, :count], psi), w[:, count:]], dim=1)
