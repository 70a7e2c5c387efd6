"""Tests of FID's Inception without its real weights: structure, pooling, resizing, and loading of the file."""

import hashlib
import math

import pytest
import torch
from torchvision.models import inception as torchvisions

from dreamportrait.core.errors import WeightsError
from dreamportrait.metrics import inception
from dreamportrait.metrics.inception import FILES, InceptionExtractor, build, load_inception, resized


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Return a file of weights with the right names and sizes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / FILES[0]
    torch.save(build().state_dict(), path)
    return path


@pytest.mark.lengthy
def test_names_and_sizes():
    """Names and sizes must be torchvision's without its second classifier, and with the 1008 classes of 2015."""
    ours, theirs = build().state_dict(), torchvisions.Inception3(aux_logits=False, init_weights=False).state_dict()
    shapes = {name: list(x.shape) for name, x in theirs.items()} | {"fc.weight": [1008, 2048], "fc.bias": [1008]}
    assert {name: list(x.shape) for name, x in ours.items()} == shapes


def test_pooling_does_not_count_what_is_outside():
    """The mean of a picture of one colour must be that colour, also at the edges."""
    flat = torch.ones(1, 192, 5, 5)
    for ours, expected in ((inception._A(192, 32), True), (torchvisions.InceptionA(192, 32), False)):
        made = ours.eval()._forward(flat)[-1]  # [1, 32, 5, 5]
        assert bool((made == made[:, :, :1, :1]).all()) == expected
    for ours in (inception._C(768, 128), inception._E(1280)):
        made = ours.eval()._forward(torch.ones(1, ours.branch_pool.conv.in_channels, 5, 5))[-1]
        torch.testing.assert_close(made, made[:, :, :1, :1].expand_as(made))


@pytest.mark.lengthy
def test_the_last_block_takes_maxima():
    block = inception._LastE(2048).eval()
    x = torch.zeros(1, 2048, 5, 5)
    x[:, :, 2, 2] = 9.0
    made = block._forward(x)[-1]
    inside, outside = made[:, :, 1:4, 1:4], made[:, :, 0]
    assert torch.equal(inside, made[:, :, 2:3, 2:3].expand_as(inside)) and not outside.any() and inside.any()
    assert isinstance(build().Mixed_7c, inception._LastE) and isinstance(build().Mixed_7b, inception._E)


def test_other_branches_are_torchvisions():
    torch.manual_seed(0)
    x, block, theirs = torch.randn(1, 288, 5, 5), inception._A(288, 64).eval(), torchvisions.InceptionA(288, 64).eval()
    theirs.load_state_dict(block.state_dict())
    for ours, other in zip(block._forward(x)[:-1], theirs._forward(x)[:-1], strict=True):
        assert torch.equal(ours, other)


def test_resizing_by_hand():
    """Resize two pixels to four: the first keeps its place, and the last two have no pixel to their right."""
    row = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    expected = [[1, 2, 3, 3], [3, 4, 5, 5], [5, 6, 7, 7], [5, 6, 7, 7]]
    assert resized(row, 4).tolist() == [[expected]]
    torch.manual_seed(0)
    x = torch.rand(2, 3, 7, 7)
    assert torch.equal(resized(x, 7), x)
    found = resized(x, 5)  # pixel 3 is at 3 * 7 / 5 = 4.2
    assert math.isclose(found[1, 2, 0, 3], 0.8 * x[1, 2, 0, 4] + 0.2 * x[1, 2, 0, 5], rel_tol=1e-5)


@pytest.mark.lengthy
def test_features(file, monkeypatch):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "SHA256_START", digest[:8])
    extractor = load_inception(file)
    assert (extractor.name, extractor.weights) == ("FID", digest)
    torch.manual_seed(0)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    features = extractor.features(images)
    assert features.shape == (2, 2048) and features.isfinite().all()
    torch.testing.assert_close(extractor.features(images[1:]), features[1:], rtol=1e-4, atol=1e-5)

    seen = []
    listener = InceptionExtractor(extractor.network, digest)
    extractor.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    black_and_white = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 8, 8)
    listener.features(black_and_white)
    assert seen[0].shape == (2, 3, 299, 299)
    assert seen[0][0].unique().tolist() == [-1.0] and seen[0][1].unique().tolist() == [127 / 128]


@pytest.mark.lengthy
def test_other_weights_are_refused(file, tmp_path):
    with pytest.raises(WeightsError, match=r"has SHA-256 \w{8}\.\.\., not 6726825d\.\.\.: other weights; get pt_"):
        load_inception(file)
    with pytest.raises(WeightsError, match=rf"are not in .*none.pth; get {FILES[0]} \(SHA-256 6726825d"):
        load_inception(tmp_path / "none.pth")


@pytest.mark.lengthy
def test_weights_in_pytorchs_cache(file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        WeightsError, match=rf"are not in {tmp_path}/checkpoints; .* put it into {tmp_path}/checkpoints"
    ):
        load_inception()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / FILES[1]).write_bytes(file.read_bytes())
    monkeypatch.setattr(inception, "SHA256_START", hashlib.sha256(file.read_bytes()).hexdigest()[:8])
    assert load_inception().name == "FID"
