"""Tests of a batch in parts, in one process or several: the parts must add up to the whole batch."""

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from same_states import assert_same
from tiny_training import DISCRIMINATOR, Recorder, batch, config, fit, loader, module, trainer
from torch import Tensor

from dreamportrait.core import processes
from dreamportrait.core.processes import average_over_processes
from dreamportrait.systems.dreamportrait import step as training
from dreamportrait.systems.dreamportrait.step import DreamPortraitModule
from dreamportrait.training.meeting import Together
from dreamportrait.training.strategy import SharedBatch

# Accumulation.


class Fixed(DreamPortraitModule):
    """A module whose draws depend on the sample alone, not on its part. The real module draws part by part."""

    def draw_identities(self, part, now):
        z = (100 * part.fake.camera[:, :8]).sin()
        return z, part.fake.camera

    def portray(self, identity, asked):
        ws = self.generator.map(*identity, asked.text)
        planes = self.generator.synthesize_planes(ws, asked.text, noise="none")
        return planes, self.generator.render(planes, asked.camera, w=ws, draws="midpoint")


def gradients_in_parts(count: int, group_size: int, monkeypatch) -> list[dict[str, Tensor]]:
    """Return the gradients of the generator's and the discriminator's update, with all regularisers and guidance."""

    def points(batch: int, device: object) -> tuple[Tensor, Tensor]:
        here = torch.linspace(-0.9, 0.9, 60).reshape(1, 20, 3).expand(batch, -1, -1)
        return here, here + 0.01

    monkeypatch.setattr(training, "density_points", points)
    monkeypatch.setattr("tiny_training.DreamPortraitModule", Fixed)
    monkeypatch.setattr(
        "tiny_training.DISCRIMINATOR", type(DISCRIMINATOR)(**vars(DISCRIMINATOR) | {"group_size": group_size})
    )
    stages = [{"name": "align", "images": 8, "guidance": True, "accumulate": count}]
    record = Recorder()
    fit(module(config(data={"batch": 8}, stages=stages)), record, data=[batch(8)])
    assert record.losses[0].keys() == {"generator", "guidance", "density", "discriminator", "r1"}
    return record.gradients


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.lengthy
def test_parts_add_up_to_the_batch(count, monkeypatch):
    """Gradients of parts must add up to those of the whole batch.

    Every loss is a mean over samples, or over whole groups of the discriminator's minibatch statistics. A part holds
    every count-th sample. This keeps groups whole if a part has at least one group: here 2 of 8 samples.
    """
    whole, parts = (gradients_in_parts(n, 2, monkeypatch) for n in (1, count))
    for one, many in zip(whole, parts, strict=True):
        assert one.keys() == many.keys()
        for name in one:
            # Sums have another order, also in the rendering.
            assert (one[name] - many[name]).abs().max() <= 1e-4 * one[name].abs().max() + 1e-7, name


@pytest.mark.lengthy
def test_parts_smaller_than_a_group_are_another_loss(monkeypatch):
    """Parts smaller than a group must give other gradients, because fewer samples are compared.

    This shows that the test above can fail.
    """
    whole, parts = (gradients_in_parts(n, 8, monkeypatch)[1] for n in (1, 4))
    names = [name for name in whole if (whole[name] - parts[name]).norm() > 1e-3 * whole[name].norm()]
    assert names


@pytest.mark.lengthy
def test_gradients_are_exchanged_once_per_update(monkeypatch):
    """Each update must exchange gradients once, whatever the number of parts and backward passes."""
    exchanged: list[tuple[int, int, int]] = []
    made = module(config(stages=[{"name": "align", "images": 8, "guidance": True, "accumulate": 4}]))

    def count(tensors: list[Tensor]) -> None:
        exchanged.append((made.images, len(tensors), sum(tensor.numel() for tensor in tensors)))

    monkeypatch.setattr(training, "average_over_processes", count)
    fit(made)
    of_generator = sum(p.numel() for p in made.generator.parameters())
    of_critic = sum(p.numel() for p in made.critic.parameters())
    sizes = [of_generator, 16, of_critic]  # the second is the average w
    measured = 0, 2  # the lengths of two gradients, when the stage begins (balance.py)
    updates = [(i, size) for i in (0, 4) for size in sizes]
    assert [(images, size) for images, _, size in exchanged] == [measured, *updates]


# Processes.


def test_average_over_one_process_is_nothing():
    values = [torch.ones(2)]
    average_over_processes(values)
    average_over_processes([])
    assert values[0].tolist() == [1, 1]


def test_average_in_one_exchange(monkeypatch):
    """Average over two processes, of which the other one has twice the values."""
    calls = []

    def all_reduce(flat: Tensor) -> None:
        calls.append(flat.shape)
        flat.mul_(3)

    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(processes.dist, "all_reduce", all_reduce)
    values = [torch.ones(2, 3), torch.full([], 4.0)]
    average_over_processes(values)
    assert calls == [torch.Size([7])]
    assert torch.equal(values[0], torch.full((2, 3), 1.5)) and float(values[1]) == 6


def worker(rank: int, folder: str, port: int) -> None:
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "NODE_RANK": 0, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(1)
    made = module(processes_config(1))
    if rank == 1:  # training must use the weights of the first process
        torch.nn.init.normal_(made.generator.generator.decoder.net[0].weight)
    record = Recorder()
    runner = trainer(record, devices=2, strategy=SharedBatch(Together(), "gloo", 60))
    runner.fit(made, loader(made.config, rank, 2))
    torch.save({"weights": made.state_dict(), "gradients": record.gradients}, Path(folder) / f"{rank}.pt")


def processes_config(accumulate: int):
    return config(stages=[{"name": "align", "images": 8, "guidance": True, "accumulate": accumulate}])


@pytest.mark.slow
def test_two_processes_are_one_with_two_parts(tmp_path):
    mp.spawn(worker, (str(tmp_path), 29000 + os.getpid() % 2000), nprocs=2)
    record = Recorder()
    fit(module(processes_config(2)), record)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(first, second)
    # Compare the first update of each network only: Adam takes full steps even for gradients that are mere rounding.
    for one, two in zip(record.gradients[:2], first["gradients"][:2], strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            # Each process pads its prompts to the longest of its own, which changes the order of sums.
            assert (two[name] - value).abs().max() <= 1e-5 * value.abs().max() + 1e-7, name
