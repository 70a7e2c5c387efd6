"""Measure the weight of CLIP's loss at which its gradient is as long as that of D-SDS.

    clip_weight(load_config("configs/dreamportrait/mini.yaml"))

The scales of the D-SDS loss and of a cosine are unrelated. To compare the direction of the guidance and not its
strength, CLIP's loss is weighted so that its gradient at a picture has the same mean length as that of D-SDS.
"""

from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from dreamportrait.data.dataset import make_pictures
from dreamportrait.systems.dreamportrait import build
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.systems.dreamportrait.step_settings import step_settings
from dreamportrait.training.loop import step_seed

PICTURES = 512  # many, because the lengths vary strongly between pictures


class ClipWeight(NamedTuple):
    weight: float  # for loss.guidance_weight
    sds: float  # mean length of the gradient of D-SDS at a picture, unweighted
    clip: float  # the same for CLIP's loss
    pictures: int


def clip_weight(config: Config, pictures: int = PICTURES) -> ClipWeight:
    """Measure the weight for a configuration of the whole method, on the pictures of its first training steps."""
    guided = config.guidance.model_copy(update={"kind": "clip"})
    sds, clip = (
        mean_slope(config.model_copy(update={"guidance": guidance}), pictures) for guidance in (config.guidance, guided)
    )
    return ClipWeight(config.loss.guidance_weight * sds / clip, sds, clip, pictures)


def mean_slope(config: Config, pictures: int = PICTURES, start: Path | None = None) -> float:
    """Return the mean length of the gradient of the guidance loss at pictures of the generator.

    start: a checkpoint of a training that holds the generator. None = the pretrained generator.
    """
    device = torch.device("cpu")
    data = make_pictures(config.data)
    text, guide = build.make_text(config, device, data), build.make_guide(config, device)
    if guide is None:
        raise ValueError(f"guidance.kind={config.guidance.kind}: no stage uses guidance; choose sds or clip")
    module = DreamPortraitModule(*build.make_networks(config, build.text_width(config)), config, guide)
    if start is not None:
        state = torch.load(start, map_location=device, weights_only=True)
        module.on_load_checkpoint(state)
        module.load_state_dict(state["state_dict"])
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
