"""The region of a head that hair leaves bare: the face below the brows, the neck and the bust.

A bald mesh imitates hair by growing: without this region, every prompt that names hair makes heads taller and wider.
"""

import torch
from torch import Tensor

from dreamportrait.systems.heads.landmarks import landmarks
from dreamportrait.systems.heads.model import HeadModel
from dreamportrait.systems.heads.skinning import to_world

MARKS = 68  # in their usual order
BROWS, CHIN, EARS = slice(17, 27), 8, (0, 16)


def bare(model: HeadModel) -> Tensor:  # [V] bool
    """Return which vertices of the mean head hair leaves bare; all vertices if the model has no 68 landmarks.

    They lie below the brows, and in front of the ears or below the chin.
    """
    place = to_world(model, model.v_template[None])[0]  # [V, 3]
    if model.landmark_faces is None or len(model.landmark_faces) != MARKS:
        return torch.ones(len(place), dtype=torch.bool)
    marks = to_world(model, landmarks(model, model.v_template[None]))[0]  # [68, 3]
    below_the_brows = place[:, 1] < marks[BROWS, 1].mean()
    in_front = place[:, 2] > marks[list(EARS), 2].mean()
    below_the_chin = place[:, 1] < marks[CHIN, 1]
    return below_the_brows & (in_front | below_the_chin)
