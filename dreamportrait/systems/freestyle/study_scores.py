"""Scores of all pictures of a row together: their distance to exact renders of styled faces."""

import torch

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.miniworld.styles import style
from dreamportrait.systems.freestyle.evaluation import Scorer, distance
from dreamportrait.systems.freestyle.exact import exact_pictures
from dreamportrait.systems.freestyle.study import Study, head_path, read_pictures


@torch.no_grad()
def distances(study: Study, scorer: Scorer, config: GeneratorConfig, exact: int) -> dict[str, dict[int, float]]:
    """Return the distance of each row and seed, where all heads are made. exact: faces in each style.

    Few pictures give large distances, so only rows with equally many can be compared.
    """
    pictures = exact_pictures([style(name) for name in study.styles], exact, config)
    perfect = scorer.image_features(pictures)
    found: dict[str, dict[int, float]] = {}
    for row in study.rows:
        for seed in range(study.seeds):
            paths = [head_path(study.out, job) for job in study.jobs() if (job.row, job.seed) == (row, seed)]
            if paths and all(path.exists() for path in paths):
                features = scorer.image_features(torch.cat([read_pictures(path) for path in paths]))
                found.setdefault(row, {})[seed] = distance(features, perfect)
    return found
