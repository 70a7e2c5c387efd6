"""Tests of the loader: an order that depends only on the seed, shares that add up to the whole, continuation."""

import itertools

import pytest
import torch
from torch import Tensor
from toy_pictures import ToyPictures, ToyText

from dreamportrait.data.dataset import Batch, TrainingData
from dreamportrait.data.loader import Loader, Order

COUNT = 10


def make(count: int = COUNT, **options) -> Loader:
    options = {"seed": 3, "batch": 4, "total": 24} | options
    return Loader(TrainingData(ToyPictures(count)), ToyText(), **options)


def numbers(batch: Batch) -> list[int]:
    """Return the numbers of the pictures in a batch."""
    return batch.pixels[:, 0, 0, 0].tolist()


def tensors(batch: Batch) -> list[Tensor]:
    text = batch.fake.text
    return [batch.pixels, batch.real.camera, batch.fake.camera, text.words, text.eot, text.mask]


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
        assert a.real.words == b.real.words and a.fake.words == b.fake.words


# The order.


def test_every_epoch_holds_every_picture_once():
    order = Order(COUNT, seed=3)
    draws = [order.draw(k) for k in range(3 * COUNT)]
    epochs = [draws[e * COUNT : (e + 1) * COUNT] for e in range(3)]
    for epoch in epochs:
        assert sorted(draw.image for draw in epoch) == list(range(COUNT))
        assert sorted(draw.fake for draw in epoch) == list(range(COUNT))
        assert all(0 <= value < 1 for draw in epoch for value in (draw.caption, draw.fake_caption))
    permutations = {tuple(draw.image for draw in epoch) for epoch in epochs}
    permutations |= {tuple(draw.fake for draw in epoch) for epoch in epochs}
    assert len(permutations) == 6


def test_the_order_is_a_function_of_seed_and_number_alone():
    backwards = Order(COUNT, seed=3)
    found = [backwards.draw(k) for k in reversed(range(40))]
    again = Order(COUNT, seed=3)
    assert found[::-1] == [again.draw(k) for k in range(40)]
    assert found[::-1] != [Order(COUNT, seed=4).draw(k) for k in range(40)]


def test_the_batch_size_does_not_change_the_order():
    small, large = make(batch=2), make(batch=8)
    assert sum(map(numbers, small), []) == sum(map(numbers, large), [])


def test_the_order_does_not_depend_on_what_else_draws():
    torch.manual_seed(0)
    first = list(make())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert_same(first, list(make()))
    assert torch.equal(before, torch.get_rng_state())  # the global generator is not advanced


# Shares.


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shares_make_up_each_batch(processes):
    whole = list(make())
    shares = [list(make(rank=rank, processes=processes)) for rank in range(processes)]
    for step, batch in enumerate(whole):
        mine = [numbers(share[step]) for share in shares]
        assert {len(part) for part in mine} == {4 // processes}
        assert list(itertools.chain(*zip(*mine, strict=True))) == numbers(batch)


def test_an_epoch_is_divided_whatever_the_number_of_processes():
    for processes in (1, 2, 5):
        shares = [make(batch=10, total=10, rank=rank, processes=processes) for rank in range(processes)]
        assert sorted(sum((numbers(batch) for share in shares for batch in share), [])) == list(range(10))


def test_parts_of_a_share_are_strided_as_shares_are():
    [batch] = make(batch=8, total=8)
    assert numbers(batch.part(1, 2)) == numbers(batch)[1::2]
    part = batch.part(1, 2)
    assert part.fake.words == batch.fake.words[1::2] and len(part) == len(part.fake) == 4
    assert torch.equal(part.fake.text.eot, batch.fake.text.eot[1::2])
    [other] = make(batch=8, total=8, rank=1, processes=2)
    assert part.fake.words == other.fake.words and torch.equal(part.real.camera, other.real.camera)
    assert numbers(part) == numbers(other)


# Continuation.


@pytest.mark.parametrize("stop", range(7))
def test_a_loader_continues_exactly_where_another_stopped(stop):
    whole = list(make())
    first = make()
    begun = list(itertools.islice(first, stop))
    state = first.state_dict()
    assert state == {"images": 4 * stop}
    second = make()
    second.load_state_dict(state)
    assert len(second) == 6
    assert_same(whole, begun + list(second))


@pytest.mark.lengthy
def test_what_workers_read_ahead_is_not_counted():
    loader = make(workers=1)
    begun = list(itertools.islice(loader, 2))
    assert loader.state_dict() == {"images": 8}
    assert_same(list(make())[:2], begun)


def test_it_continues_with_another_number_of_processes_and_batch_size():
    whole = list(make(batch=8, total=24))
    shares = [make(rank=rank, processes=2) for rank in range(2)]
    for share in shares:
        share.load_state_dict({"images": 8})
    rest = [numbers(batch) for share in shares for batch in share]
    assert sorted(sum(rest, [])) == sorted(sum(map(numbers, whole[1:]), []))


def test_a_finished_run_has_nothing_left():
    loader = make()
    loader.load_state_dict({"images": 24})
    assert list(loader) == []
    loader.load_state_dict({"images": 28})
    assert list(loader) == []


# Rejected settings.


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="batch=4: does not divide among 3 processes"):
        make(processes=3)
    with pytest.raises(ValueError, match="rank=2: must be from 0 to 1"):
        make(rank=2, processes=2)
    with pytest.raises(ValueError, match="count=0: there is nothing to draw from"):
        make(count=0)
    with pytest.raises(ValueError, match="6 images are no whole number of batches of 4"):
        make().load_state_dict({"images": 6})


# Text.


def test_text_belongs_to_the_prompts_of_the_generator():
    for batch in make():
        assert batch.real.text is None
        assert batch.fake.text.eot[:, 0].tolist() == [words.image for words in batch.fake.words]
        assert batch.fake.text.mask.sum(1).tolist() == [words.caption + 1 for words in batch.fake.words]


def test_text_of_the_pictures_where_the_discriminator_reads():
    for batch in make(real_text=True):
        assert batch.real.text.eot[:, 0].tolist() == [words.image for words in batch.real.words] == numbers(batch)
