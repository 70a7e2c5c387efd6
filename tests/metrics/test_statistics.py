"""Tests of moments of real pictures and their cache, of fingerprints, and of data sets and extractors by name."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_evaluation import make_judge
from tiny_training import SIZE, Pictures
from toy_run import write_faces

from dreamportrait.core.errors import DataError, WeightsError
from dreamportrait.core.files import cache_folder
from dreamportrait.data.names import check_source
from dreamportrait.data.sources import open_pictures, read_captions
from dreamportrait.geometry.images import from_bytes
from dreamportrait.metrics.extractors import (
    ClipExtractor,
    check_extractor,
    default_extractor,
    default_judge,
    load_extractor,
)
from dreamportrait.metrics.frechet import Moments
from dreamportrait.metrics.statistics import Fingerprints, RealStatistics
from dreamportrait.metrics.world_oracle import make_oracle
from dreamportrait.weights.hashing import weights_hash


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return make_judge(tmp_path_factory.mktemp("judge"))


class Counting:
    """An extractor that counts the pictures it is given."""

    def __init__(self, judge, name="FID(counting)"):
        self.inner, self.name, self.weights, self.seen = ClipExtractor(judge), name, "abc", 0

    def features(self, images):
        self.seen += len(images)
        return self.inner.features(images)


def make(extractor, cache, **changes):
    given = {"pictures": Pictures(), "count": 8, "shown": "all", "content": "of these"} | changes
    return RealStatistics(given.pop("pictures"), extractor, **given, cache=cache)


def test_moments(judge):
    found = make(ClipExtractor(judge), None).moments(SIZE)
    images = from_bytes(torch.stack([Pictures().image(i) for i in range(8)]))
    expected = Moments.of(judge.scorer.image_features(images))
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.covariance, expected.covariance, rtol=0, atol=1e-7)


def test_computed_once(judge, tmp_path):
    first = Counting(judge)
    made = make(first, tmp_path)
    moments = made.moments(SIZE), made.moments(SIZE), made.moments(8)
    assert first.seen == 16  # 8 pictures at two sizes
    second = Counting(judge)
    found = make(second, tmp_path)
    assert second.seen == 0 and torch.equal(found.moments(SIZE).covariance, moments[0].covariance)
    assert torch.equal(found.moments(8).mean, moments[2].mean) and second.seen == 0
    assert len(list((tmp_path / "statistics").iterdir())) == 2  # no unfinished file is left


@pytest.mark.parametrize("change", [{"count": 9}, {"shown": "face"}, {"content": "of others"}])
def test_what_else_is_measured_is_computed(judge, tmp_path, change):
    make(Counting(judge), tmp_path).moments(SIZE)
    other = Counting(judge)
    make(other, tmp_path, **change).moments(SIZE)
    assert other.seen == change.get("count", 8)


def test_another_extractor_is_asked(judge, tmp_path):
    make(Counting(judge), tmp_path).moments(SIZE)
    for name, weights in (("FID(other)", "abc"), ("FID(counting)", "abd")):
        other = Counting(judge, name)
        other.weights = weights
        make(other, tmp_path).moments(SIZE)
        assert other.seen == 8


def test_a_damaged_file_is_made_anew(judge, tmp_path):
    expected = make(Counting(judge), tmp_path).moments(SIZE)
    (path,) = (tmp_path / "statistics").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    again = Counting(judge)
    assert torch.equal(make(again, tmp_path).moments(SIZE).mean, expected.mean) and again.seen == 8
    assert set(load_file(path)) == {"mean", "covariance"}


def test_fingerprints():
    whole, part = Fingerprints(Pictures(), 10), Fingerprints(Pictures(), 9)
    assert Fingerprints(Pictures(12), 10).whole != whole.whole  # other cameras
    assert whole.pictures != part.pictures and whole.whole != part.whole

    class Told(Pictures):
        def evaluation_caption(self, index):
            return "a man"

    class Described(Pictures):
        def captions(self, index):
            return ["a man", super().captions(index)[1]]

    for other in (Told(), Described()):
        found = Fingerprints(other, 10)
        assert found.pictures == whole.pictures and found.whole != whole.whole
    moved = Pictures()
    moved.cameras = moved.cameras + 1e-3
    assert Fingerprints(moved, 10).whole != whole.whole
    turned = Pictures()
    turned._images = turned._images.flip(0)
    assert Fingerprints(turned, 10).pictures != whole.pictures


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


# Data sets and extractors by name.


def test_a_folder(tmp_path):
    write_faces(tmp_path / "faces")
    pictures = open_pictures(str(tmp_path / "faces"))
    assert len(pictures) == 10 and pictures.evaluation_caption(3) == "eval 3"
    assert make_oracle(pictures, "cpu") is None
    (tmp_path / "fixed.json").write_text(json.dumps(["one", "two", "three"]))
    fixed = open_pictures(str(tmp_path / "faces"), tmp_path / "fixed.json")
    assert len(fixed) == len(fixed.cameras) == 3 and fixed.evaluation_caption(2) == "three"
    assert torch.equal(fixed.image(2), pictures.image(2)) and fixed.captions(1) == ["two"]


def test_a_picture_that_cannot_be_read(tmp_path):
    write_faces(tmp_path / "faces")
    path = sorted((tmp_path / "faces").rglob("*.png"))[4]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=rf"{path.name} cannot be read"):
        Fingerprints(open_pictures(str(tmp_path / "faces")), 10)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_pictures(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "cannot be read"),
        ('{"a": "b"}', "must be a JSON list of texts"),
        ("[]", "must be a JSON list of texts"),
        ('["a man", 5]', r"number 1 \(from 0\) is 5, no text"),
        ('["a man", " "]', r"number 1 \(from 0\) is ' ', no text"),
        (json.dumps(["a man"] * 11), "has 11 captions for 10 pictures; remove some"),
    ],
)
def test_captions_that_do_not_fit(tmp_path, content, message):
    write_faces(tmp_path / "faces")
    (tmp_path / "fixed.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_pictures(str(tmp_path / "faces"), tmp_path / "fixed.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_captions(tmp_path / "none.json")


def test_names():
    assert (default_judge("miniworld:test"), default_extractor("miniworld:test")) == ("mini/clip-b", "mini-clip")
    assert (default_judge("data.zip"), default_extractor("data.zip")) == ("ViT-B-32:openai", "inception")
    for source, message in (("miniworld:train", "no split 'train'"), ("nowhere", "nowhere is not there")):
        with pytest.raises(DataError, match=message):
            check_source(source)
    assert check_extractor("mini-clip") == ("clip", "mini/clip-b")
    assert check_extractor("clip:ViT-B-32:openai") == ("clip", "ViT-B-32:openai")
    for source in ("dino", "clip", "clip:", "mini"):
        with pytest.raises(WeightsError, match=f"extractor '{source}': must be inception"):
            check_extractor(source)


def test_extractors_by_name(judge):
    same = load_extractor(f"clip:{judge.source}", judge)
    assert isinstance(same, ClipExtractor) and same.judge is judge  # not loaded twice
    mini = load_extractor("mini-clip", judge)
    assert mini.name == "FID(mini-clip)" and mini.weights != same.weights


def test_weights_have_one_hash():
    layer = torch.nn.Linear(2, 2)
    first = weights_hash(layer)
    assert first == weights_hash(layer) and len(first) == 64
    layer.weight.data[0, 0] += 1e-6
    assert weights_hash(layer) != first
