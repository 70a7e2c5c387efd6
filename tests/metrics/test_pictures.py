"""Tests of the scores of pictures of other systems, with the data set's own pictures and hand-made ones."""

import pytest
import torch
from PIL import Image
from test_evaluate import Says
from tiny_evaluation import PROTOCOL, make_judge
from tiny_training import SIZE, Pictures

from dreamportrait.data.numbered import NumberedPictures
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.extractors import ClipExtractor
from dreamportrait.metrics.pictures import evaluate_pictures
from dreamportrait.metrics.r_precision import r_precision


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make_judge(tmp_path_factory.mktemp("judge"))


def written(folder, pictures, count=10):
    for i in range(count):
        Image.fromarray(pictures.image(i).permute(1, 2, 0).numpy()).save(folder / f"{i:03d}.png")
    return NumberedPictures(folder, SIZE)


def test_the_data_sets_own_pictures(judge, tmp_path):
    """They have no distance to themselves. The other scores are those of a plain loop."""
    pictures = Pictures()
    made = written(tmp_path, pictures)
    scores = evaluate_pictures(made, pictures, judge.scorer, ClipExtractor(judge), PROTOCOL, Says())
    assert scores.fid == pytest.approx(0, abs=1e-6)  # the root of a covariance in float64, of features in float32
    assert {place: each.distance for place, each in scores.sharpness.items()} == {"all": 0, "face": 0}
    seen = judge.scorer.image_features(from_bytes(torch.stack([pictures.image(i) for i in range(10)])))
    words = judge.scorer.text_features([pictures.evaluation_caption(i) for i in range(10)])
    # Batches of 4 and of 10 sum in another order.
    assert scores.clip_score == pytest.approx(100 * float((seen * words).sum(1).mean()), rel=1e-4)
    assert scores.r_precision == r_precision(seen, words, PROTOCOL.num_candidates, PROTOCOL.seed)
    assert scores.oracle is not None and scores.oracle.complete == 0.5
    assert scores.as_dict()["sharpness"]["face"]["distance"] == 0


def test_too_few_pictures(judge, tmp_path):
    made = written(tmp_path, Pictures(), 5)
    with pytest.raises(ValueError, match="count=10: .* has 5 pictures; measure at most as many"):
        evaluate_pictures(made, Pictures(), judge.scorer, ClipExtractor(judge), PROTOCOL)
