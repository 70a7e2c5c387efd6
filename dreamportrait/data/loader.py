"""Batches in an order that depends on the seed alone, from any image on, for any number of processes.

The pictures of a run are one long stream: every epoch is a permutation of its own, and a batch may span two. Image
number k of the stream is the same for every batch size and number of processes, so a loader's whole state is how many
have been handed out. Process r of W gets every W-th image of each batch, from the r-th on: statistics over a batch
then see the groups that they would see in one process.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from torch.utils.data import DataLoader

from dreamportrait.data.dataset import Batch, Conditions, Draw, TrainingData, collate
from dreamportrait.text.encoder import PromptEncoder


class _Epoch(NamedTuple):
    images: Array
    captions: Array
    fakes: Array
    fake_captions: Array


class Order:
    """Image number -> what is drawn."""

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"count={count}: there is nothing to draw from")
        self.count, self.seed = count, seed
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def draw(self, number: int) -> Draw:
        epoch, place = divmod(number, self.count)
        images, captions, fakes, fake_captions = (values[place] for values in self._epoch(epoch))
        return Draw(int(images), float(captions), int(fakes), float(fake_captions))

    def _make_epoch(self, epoch: int) -> _Epoch:
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        n = self.count
        return _Epoch(rng.permutation(n), rng.random(n), rng.permutation(n), rng.random(n))


class Loader:
    """Iterating gives one process's batches from `images` to `total`; `images` runs along."""

    def __init__(
        self,
        data: TrainingData,
        text: PromptEncoder,
        *,
        seed: int,
        batch: int,  # over all processes
        total: int,  # images of the run
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,  # processes that read
        real_text: bool = False,  # also features of the pictures' own captions
    ) -> None:
        if batch % processes:
            raise ValueError(f"batch={batch}: does not divide among {processes} processes; choose a multiple")
        if not 0 <= rank < processes:
            raise ValueError(f"rank={rank}: must be from 0 to {processes - 1}")
        self.data, self.text = data, text
        self.order = Order(len(data), seed)
        self.batch, self.total, self.rank, self.processes = batch, total, rank, processes
        self.workers, self.real_text = workers, real_text
        self.images = 0  # handed out, over all processes

    def __len__(self) -> int:
        """Batches of the whole run, also of one that continues: Lightning counts those before as well."""
        return self.total // self.batch

    def __iter__(self) -> Iterator[Batch]:
        plain = DataLoader(
            self.data,
            batch_sampler=self._shares(range(self.images, len(self) * self.batch, self.batch)),
            collate_fn=collate,
            num_workers=self.workers,
            # Not forked: this process may hold threads and a CUDA context.
            multiprocessing_context="forkserver" if self.workers else None,
            generator=torch.Generator().manual_seed(0),  # else it draws from the one that training draws from
        )
        for found in plain:
            self.images += self.batch
            real = self._with_text(found.real) if self.real_text else found.real
            yield Batch(found.image, real, self._with_text(found.fake))

    def state_dict(self) -> dict[str, int]:
        return {"images": self.images}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        images = state["images"]
        if images < 0 or images % self.batch:
            raise ValueError(
                f"{images} images are no whole number of batches of {self.batch}; "
                "a run is continued with a batch size that divides what it has seen"
            )
        self.images = images

    def _shares(self, starts: range) -> Iterator[list[Draw]]:
        for first in starts:
            yield [self.order.draw(k) for k in range(first + self.rank, first + self.batch, self.processes)]

    def _with_text(self, conditions: Conditions) -> Conditions:
        return Conditions(conditions.camera, conditions.words, self.text.encode(conditions.prompts))
