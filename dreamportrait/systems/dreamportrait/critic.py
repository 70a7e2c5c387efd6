"""The discriminator as training sees it: blind to text by default, or also a judge of whether picture and prompt agree.

Text is compared with what is seen as the camera is (a projection): logit = features . (camera + P text) / sqrt(C).
P starts at zero, so that a pretrained discriminator begins with its own opinion, bit for bit.
"""

from torch import Tensor, nn

from dreamportrait.eg3d.conv import normalize_2nd_moment
from dreamportrait.eg3d.discriminator import DualDiscriminator, project
from dreamportrait.eg3d.layers import FullyConnected


class Critic(nn.Module):
    def __init__(
        self,
        discriminator: DualDiscriminator,
        text_width: int | None = None,  # channels of the text features. None = blind to text
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
        eot: Tensor | None = None,  # [N, C] of the whole prompt; needed by a critic that reads
    ) -> Tensor:  # logits [N, 1]
        if self.projection is None:
            logits: Tensor = self.discriminator(image, image_raw, camera)
            return logits
        if eot is None:
            raise ValueError("a text-aware discriminator was given no text; pass the prompts' eot features")
        condition = self.discriminator.embed(camera) + self.projection(normalize_2nd_moment(eot.float()))
        return project(self.discriminator.features(image, image_raw), condition)
