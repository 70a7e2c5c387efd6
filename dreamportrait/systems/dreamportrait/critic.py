"""The discriminator of a training. By default it ignores text.

A text-aware discriminator also judges whether picture and prompt match. It compares text with the picture's features in
the same way as the camera, by a projection: logit = features . (camera + P text) / sqrt(C). P is zero at
initialisation, so that the logits of a pretrained discriminator are at first unchanged, bit for bit.
"""

from torch import Tensor, nn

from dreamportrait.eg3d.conv import normalize_2nd_moment
from dreamportrait.eg3d.discriminator import DualDiscriminator, project
from dreamportrait.eg3d.layers import FullyConnected


class Critic(nn.Module):
    def __init__(
        self,
        discriminator: DualDiscriminator,
        text_width: int | None = None,  # channels of the text features. None = ignore text
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.projection: FullyConnected | None = None
        if text_width is not None:
            self.projection = FullyConnected(text_width, discriminator.mapping.embed.weight.shape[0])
            nn.init.zeros_(self.projection.weight)

    @property
    def reads(self) -> bool:
        return self.projection is not None

    def forward(
        self,
        image: Tensor,  # [N, 3, R, R]
        image_raw: Tensor,  # [N, 3, r, r]
        camera: Tensor,  # [N, 25]
        eot: Tensor | None = None,  # [N, C] of the whole prompt; required by a text-aware critic
    ) -> Tensor:  # logits [N, 1]
        if self.projection is None:
            logits: Tensor = self.discriminator(image, image_raw, camera)
            return logits
        if eot is None:
            raise ValueError("a text-aware discriminator was given no text; pass the prompts' eot features")
        condition = self.discriminator.embed(camera) + self.projection(normalize_2nd_moment(eot.float()))
        return project(self.discriminator.features(image, image_raw), condition)
