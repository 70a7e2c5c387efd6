"""Tests of all scores of a tiny generator, against a plain loop over its samples and hand-made cases."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from tiny_evaluation import PROTOCOL, Text, generator, make_judge, measured
from tiny_training import SIZE, Pictures

from dreamportrait.geometry.cameras import orbit
from dreamportrait.geometry.images import as_saved, from_bytes
from dreamportrait.metrics import region
from dreamportrait.metrics.extractors import ClipExtractor
from dreamportrait.metrics.frechet import Moments, frechet_distance
from dreamportrait.metrics.oracle import KeptScore, OracleScore
from dreamportrait.metrics.r_precision import r_precision
from dreamportrait.metrics.scores import Protocol, fitted
from dreamportrait.metrics.sharpness import RealPatches, sharpness
from dreamportrait.metrics.subject import IDENTITIES, SAMPLES, latents
from dreamportrait.systems.dreamportrait.generator import TextTo3D


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make_judge(tmp_path_factory.mktemp("judge"))


@pytest.fixture(scope="module")
def scores(judge):
    return measured(judge)


def flat(scores):
    """Return all numbers by their dotted names."""
    found, todo = {}, [("", scores.as_dict())]
    while todo:
        place, values = todo.pop()
        for name, value in values.items():
            if isinstance(value, dict):
                todo.append((f"{place}{name}.", value))
            elif value is not None:
                found[f"{place}{name}"] = value
    return found


@pytest.mark.lengthy
def test_against_a_plain_loop(judge, scores):
    """Compute the scores one sample at a time, from eight-bit pictures, and share nothing between the views."""
    made, pictures = generator(), Pictures()
    front = orbit([0.0], 0.0, made.config.camera_radius, made.config.camera_pivot)
    cosines, placed, raw, seen, words = [], [], [], [], []
    for i in range(10):
        caption, z = pictures.evaluation_caption(i), latents(8, 0, SAMPLES, [i])
        text = Text().encode([caption])
        ws = made.map(z, front, text)
        planes = made.synthesize_planes(ws, text)
        cameras = orbit([-15.0, 0.0, 15.0], 0.0, made.config.camera_radius, made.config.camera_pivot)
        views = [made.render(planes, camera[None], w=ws).image for camera in cameras]
        features = [judge.scorer.image_features(as_saved(view))[0] for view in views]
        word = judge.scorer.text_features([caption])[0]
        cosines.append([100 * float(feature @ word) for feature in features])
        shown = made(z, pictures.cameras[i : i + 1], Text().encode([pictures.captions(i)[0]]), front)
        placed.append(judge.scorer.image_features(as_saved(shown.image))[0])
        raw.append(judge.scorer.image_features(as_saved(shown.image_raw))[0])
        seen.append(features[1])
        words.append(word)
    by_view = torch.tensor(cosines).mean(0).tolist()
    assert list(scores.clip_score.values()) == pytest.approx(by_view, rel=1e-4)
    assert scores.msc == pytest.approx(sum(by_view) / 3, rel=1e-4)
    assert scores.r_precision == r_precision(torch.stack(seen), torch.stack(words), 4, 0)
    images = from_bytes(torch.stack([pictures.image(i) for i in range(10)]))
    small = as_saved(F.interpolate(images, (8, 8), mode="bilinear", antialias=True))
    for real, features, found in ((images, placed, scores.fid), (small, raw, scores.fid_raw)):
        expected = frechet_distance(Moments.of(judge.scorer.image_features(real)), Moments.of(torch.stack(features)))
        assert found == pytest.approx(expected, rel=1e-3)


def test_diversity_against_a_plain_loop(judge, scores):
    made, pictures = generator(), Pictures()
    front = orbit([0.0], 0.0, made.config.camera_radius, made.config.camera_pivot)
    distances = []
    for prompt in range(4):
        features = []
        for k in range(3):
            text = Text().encode([pictures.evaluation_caption(prompt)])
            z = latents(8, 0, IDENTITIES, [prompt * 3 + k])
            features.append(judge.scorer.image_features(as_saved(made(z, front, text).image))[0])
        distances += [1 - float(features[i] @ features[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert scores.prompt_diversity.features == pytest.approx(sum(distances) / 12, rel=1e-3)
    assert scores.identity_diversity.features > 0 and scores.identity_diversity.colors > 0


@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.lengthy
def test_the_batch_changes_nothing(judge, scores, batch):
    """The batch size may only change the order of float32 sums, which can change a rounded colour by 1/255."""
    found, expected = flat(measured(judge, replace(PROTOCOL, batch=batch))), flat(scores)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name


def test_a_sample_depends_on_its_number_alone():
    assert torch.equal(latents(8, 0, SAMPLES, [4]), latents(8, 0, SAMPLES, [2, 4])[1:])
    for other in (latents(8, 1, SAMPLES, [4]), latents(8, 0, IDENTITIES, [4]), latents(8, 0, SAMPLES, [5])):
        assert not torch.equal(latents(8, 0, SAMPLES, [4]), other)


@pytest.mark.lengthy
def test_again_and_with_another_seed(judge, scores):
    state = torch.get_rng_state()
    assert flat(measured(judge)) == flat(scores)  # bit for bit
    assert torch.equal(torch.get_rng_state(), state)  # so training can be measured between two steps
    assert flat(measured(judge, replace(PROTOCOL, seed=1))) != flat(scores)


def test_a_generator_that_ignores_z_has_no_diversity(judge):
    made = generator()
    whole = made.map
    made.map = lambda z, *rest, **named: whole(z[:1].expand_as(z) * 0, *rest, **named)
    found = measured(judge, generator=made)
    assert found.prompt_diversity == pytest.approx((0, 0), abs=1e-6)
    assert found.identity_diversity.colors > 1e-4  # prompts still differ


def test_truncation_reaches_the_generator(judge, scores):
    found = measured(judge, replace(PROTOCOL, truncation=0.0))
    assert found.prompt_diversity.colors < 1e-6 < scores.prompt_diversity.colors


# The oracle.


class Says:
    """An oracle with fixed answers: it confirms hats of odd samples and hair of samples 0 to 4, and knows no beard."""

    names = ("hat", "hair", "beard")

    def judge(self, images, numbers):
        nothing = float("nan")
        return torch.tensor([[1.0 if i % 2 else nothing, float(i < 5), nothing] for i in numbers])

    def kept(self, images, plain, numbers):
        """Compare pictures as a whole: text must change them."""
        nothing = float("nan")
        same = (images == plain).flatten(1).all(1)
        return torch.tensor([[nothing, nothing, float(each)] for each in same])


def test_the_oracle(judge):
    found = measured(judge, oracle=Says()).oracle
    assert found.by_attribute == {"hat": 1.0, "hair": 0.5}  # no caption names a beard
    assert found.share == pytest.approx(10 / 15) and found.complete == 0.5 and found.count == 10


def test_oracle_by_hand():
    no = float("nan")
    score = OracleScore.of(torch.tensor([[1, no], [0, 1], [1, 1.0]]), ("hat", "beard"))
    assert score == OracleScore(4 / 5, {"hat": pytest.approx(2 / 3), "beard": 1.0}, pytest.approx(2 / 3), 3)
    with pytest.raises(ValueError, match="no caption says anything that the oracle knows"):
        OracleScore.of(torch.tensor([[no]]), ("hat",))


def test_what_is_unsaid_by_hand():
    no = float("nan")
    score = KeptScore.of(torch.tensor([[1, no, no], [0, 1, no]]), ("hat", "beard", "hair"))
    assert score == KeptScore(pytest.approx(2 / 3), {"hat": 0.5, "beard": 1.0}, 3)
    assert KeptScore.of(torch.full((2, 3), no), ("hat", "beard", "hair")) is None


def test_pictures_without_text(judge):
    """With text, all ten pictures must differ from those without; a generator that ignores text changes nothing."""
    assert measured(judge, oracle=Says()).unsaid == KeptScore(0.0, {"beard": 0.0}, 10)
    silent = generator()
    for parameter in silent.listeners().parameters():
        torch.nn.init.zeros_(parameter)
    assert measured(judge, generator=silent, oracle=Says()).unsaid == KeptScore(1.0, {"beard": 1.0}, 10)


def test_a_generator_that_always_needs_text(judge):
    class OnlyText:
        def __init__(self):
            self.inner = TextTo3D(generator(), Text())
            self.config, self.portray = self.inner.config, self.inner.portray

    found = measured(judge, subject=OnlyText(), oracle=Says())
    assert found.oracle is not None and found.unsaid is None


# Sharpness and FID3D.


def test_sharpness_against_the_pictures_themselves(judge, scores):
    """The pictures of the distance are compared, at the positions of their numbers, with real ones."""
    made, pictures = TextTo3D(generator(), Text()), Pictures()
    z = latents(8, 0, SAMPLES, list(range(10)))
    heads = made.portray([pictures.captions(i)[0] for i in range(10)], z)
    images = as_saved(heads.view(pictures.cameras).image)
    expected = sharpness(images, RealPatches(pictures.image, 10, 10))
    for place in ("all", "face"):
        # A batch of another size may round a colour to its neighbour.
        assert asdict(scores.sharpness[place]) == pytest.approx(asdict(expected[place]), rel=1e-3)


def test_fid3d_is_the_distance(scores):
    assert scores.fid3d == scores.as_dict()["fid3d"] == scores.fid


def test_numbers_for_a_log(judge, scores):
    names = {"fid", "fid_raw", "msc", "r_precision", "prompt_diversity", "color_error", "sharpness", "nearest_patch"}
    assert scores.numbers().keys() == names
    found = measured(judge, oracle=Says()).numbers()
    assert found.keys() == names | {"oracle", "oracle_complete", "unsaid_kept"} and found["oracle_complete"] == 0.5


# The region.


def test_what_is_outside_of_the_face_is_not_judged(judge):
    images = torch.rand(2, 3, 64, 64)
    images[1] = torch.where(region.inside(64) > 0, images[0], torch.rand(3, 64, 64))
    assert torch.equal(*region.show(images, "face")) and not torch.equal(*region.show(images, "all"))
    assert float(region.inside(64).mean()) == pytest.approx(torch.pi * 0.27 * 0.33, rel=0.01)
    assert region.inside(64)[33, 32] == 1 and region.inside(64)[2, 32] == 0


@pytest.mark.lengthy
def test_scores_of_faces(judge, scores):
    class Cropped(Pictures):
        def image(self, index):
            image = super().image(index).clone()
            image[:, region.inside(SIZE) == 0] = 0  # pixels outside of the face do not matter
            return image

    protocol = replace(PROTOCOL, region="face")
    found = measured(judge, protocol)
    assert found.fid != scores.fid and found.msc != scores.msc
    assert found.consistency == scores.consistency  # measured on whole pictures
    assert measured(judge, protocol, pictures=Cropped()).fid == found.fid


# Errors.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, "count"),
        ({"num_candidates": 11}, "num_candidates=11: must be from 2 to the samples, 10"),
        ({"prompts_for_diversity": 11}, "prompts_for_diversity=11: more than samples, 10"),
        ({"truncation": 1.5}, r"truncation=1.5: must be within 0 .. 1"),
        ({"views": (-15.0, 15.0)}, "must be the front, 0, and at least one other"),
        ({"per_prompt": 1}, "per_prompt"),
        ({"region": "hair"}, "region='hair': must be one of all, face"),
        ({"batch": 0}, "batch"),
    ],
)
def test_wrong_protocols(change, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**{"count": 10, "num_candidates": 4, "prompts_for_diversity": 4} | change)


def test_few_samples():
    assert fitted(20) == Protocol(count=20, num_candidates=20, prompts_for_diversity=20)
    assert fitted(300, num_candidates=7) == Protocol(count=300, num_candidates=7)
    assert asdict(Protocol())["num_candidates"] == 100


def test_wrong_data_sets(judge):
    with pytest.raises(ValueError, match="count=11: the data set has 10 pictures; measure at most as many"):
        measured(judge, replace(PROTOCOL, count=11))
    other = Pictures()
    other.resolution = 32
    with pytest.raises(ValueError, match="pictures are 32 x 32, the generator's 16 x 16"):
        measured(judge, pictures=other)


def test_weights_that_are_broken(judge):
    made = generator()
    made.generator.superresolution.block1.torgb.bias.data[:] = float("nan")
    with pytest.raises(ValueError, match="sample 0: features of its picture are NaN or infinite; the weights"):
        measured(judge, generator=made)


def test_one_sample_that_is_broken(judge):
    made = generator()
    whole = made.map

    def map_(z, *rest, **named):
        ws = whole(z, *rest, **named)
        return torch.where((z == latents(8, 0, SAMPLES, [6])).all(1)[:, None, None], float("nan"), ws)

    made.map = map_
    with pytest.raises(ValueError, match="sample 6: "):
        measured(judge, generator=made)


def test_names_of_distances(judge):
    assert ClipExtractor(judge).name.startswith("FID(clip ")
