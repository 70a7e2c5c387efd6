"""Pictures with known contents, for tests of which data are read and when."""

import re

import torch
from torch import Tensor

from dreamportrait.geometry.cameras import camera_label, intrinsics_from_fov, official_pose
from dreamportrait.text.encoder import TextFeatures


class ToyPictures:
    """Data set whose picture i has brightness i and 1 + i % 3 captions that name i."""

    resolution = 8

    def __init__(self, count: int) -> None:
        yaw = torch.linspace(1.2, 1.9, count)
        self.cameras = camera_label(official_pose(yaw), intrinsics_from_fov(18.837))  # [N, 25]

    def __len__(self) -> int:
        return len(self.cameras)

    def image(self, index: int) -> Tensor:
        return torch.full((3, 8, 8), index, dtype=torch.uint8)

    def captions(self, index: int) -> list[str]:
        return [f"face {index}, caption {k}" for k in range(1 + index % 3)]

    def evaluation_caption(self, index: int) -> str:
        return f"face {index}"


class ToyText:
    """Text encoder: the features of caption k of a picture are the number of the picture, k + 1 times."""

    def encode(self, prompts: list[str]) -> TextFeatures:
        words = [[int(number) for number in re.findall(r"\d+", prompt)] for prompt in prompts]  # image, caption
        length = max(caption for _, caption in words) + 1
        numbers = torch.tensor([image for image, _ in words]).float()
        mask = torch.arange(length) <= torch.tensor([caption for _, caption in words])[:, None]
        return TextFeatures(numbers[:, None, None].expand(-1, length, 2), numbers[:, None].expand(-1, 2), mask)
