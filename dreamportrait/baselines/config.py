"""The settings of the baselines: configs/baselines/*.yaml. Each section was chosen on a validation split."""

from typing import Annotated, Literal

from pydantic import Field

from dreamportrait.core.config import Count, Rate, Section, Share, Text, Weight
from dreamportrait.core.settings import Problem


class Distilled(Section):
    """Settings of an optimisation of one head by score distillation."""

    steps: Count
    rate: Rate  # Adam's at the first step
    scale: Weight  # of classifier-free guidance
    t_min: Share
    t_max: Share
    weight: Literal["uniform", "sigma", "sigma_squared", "chained", "beta"] = "sigma_squared"  # w(t); SJC has its own
    rescale: Share = 0.0  # of the noises, as in D-SDS. DreamFusion and SJC do not rescale


class FromNothing(Distilled):
    """Settings of heads that begin as planes of noise."""

    smooth: Weight  # of the differences between neighbours on the planes
    opaque: Weight  # of the entropy of opacity, as in Stable-DreamFusion: rays are full or empty


class Guided(Section):
    """Settings of an optimisation of w by CLIP."""

    steps: Count
    rate: Rate  # in standard deviations of w
    leash: Weight  # of the squared distance from the seed's own w, in standard deviations
    copies: Annotated[int, Field(ge=1, le=256)]  # augmented copies of the picture that CLIP sees in a step


class Moved(Distilled):
    """Settings of an optimisation of w by score distillation."""

    leash: Weight


class Lifted(Section):
    """Settings of a picture by the diffusion model that is inverted into the generator."""

    sampling_steps: Annotated[int, Field(ge=1, le=1000)]
    scale: Weight  # of classifier-free guidance
    steps: Count  # of the search for w
    tuning_steps: Count  # of the backbone


class Baselines(Section):
    """Models and settings of all methods."""

    model: Text  # the text-to-3D generator: the one pass, and the one into which pictures are inverted
    pretrained: Text  # the EG3D without text, whose w are optimised
    diffusion: Text  # as guidance.source
    clip: Text  # guides; another one judges
    sds: FromNothing
    sjc: FromNothing
    sds_w: Moved
    clip_w: Guided
    lifting: Lifted

    def contradictions(self) -> list[Problem]:
        given = {"sds": self.sds, "sjc": self.sjc, "sds_w": self.sds_w}
        return [
            Problem((f"{name}.t_min", f"{name}.t_max"), f"{s.t_min} and {s.t_max}: t_min must be below t_max")
            for name, s in given.items()
            if s.t_min >= s.t_max
        ]
