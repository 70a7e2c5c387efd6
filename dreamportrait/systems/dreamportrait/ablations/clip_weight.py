"""How strongly each kind of guidance pulls at the pictures it starts with.

    clip_weight(load_config("configs/dreamportrait/mini.yaml"))

The scales of D-SDS and of a cosine have nothing to do with each other. To compare what they teach rather than how
loudly, CLIP's loss is weighted so that its gradient at a picture has the mean length of that of D-SDS.
"""

from itertools import islice
from typing import NamedTuple

import torch

from dreamportrait.data.dataset import make_pictures
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.systems.dreamportrait.step_settings import step_settings
from dreamportrait.training.loop import step_seed

PICTURES = 512  # lengths differ much from one to the next


class ClipWeight(NamedTuple):
    weight: float  # for loss.guidance_weight
    sds: float  # mean length of its gradient at a picture, unweighted
    clip: float
    pictures: int


def clip_weight(config: Config, pictures: int = PICTURES) -> ClipWeight:
    """config: of the whole method. The pictures are those that its first steps would draw."""
    guided = config.guidance.model_copy(update={"kind": "clip"})
    sds, clip = (
        mean_slope(config.model_copy(update={"guidance": guidance}), pictures) for guidance in (config.guidance, guided)
    )
    return ClipWeight(config.loss.guidance_weight * sds / clip, sds, clip, pictures)


def mean_slope(config: Config, pictures: int = PICTURES) -> float:
    """Of the guide's loss at pictures of the pretrained generator."""
    device = torch.device("cpu")
    data = make_pictures(config.data)
    text, guide = build.make_text(config, device, data), build.make_guide(config, device)
    if guide is None:
        raise ValueError(f"guidance.kind={config.guidance.kind}: nothing guides in any stage; choose sds or clip")
    module = DreamPortraitModule(*build.make_networks(config, build.text_width(config)), config, guide)
    now, lengths = step_settings(config, 0), []
    batches = islice(build.make_loader(config, data, text, 0, 1), -(-pictures // config.data.batch))
    for number, batch in enumerate(batches):
        torch.manual_seed(step_seed(config.run.seed, number))
        with torch.no_grad():
            _, fake = module.portray(module.draw_identities(batch, now), batch.fake)
        image = fake.image.requires_grad_()  # [N, 3, R, R]
        (slope,) = torch.autograd.grad(guide(image, batch.fake.prompts, batch.fake.camera), image)
        lengths.append(len(batch) * slope.flatten(1).norm(dim=1))  # the loss is a mean over the batch
    return float(torch.cat(lengths).mean())
