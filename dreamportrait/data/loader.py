"""Batches in an order that depends only on the seed. They can start at any image and be split over processes.

The pictures of a run form one long stream. Each epoch is a new permutation, and a batch may span two epochs. Image
number k of the stream is the same for every batch size and number of processes, so the state of a loader is only the
number of images handed out. Process r of W gets every W-th image of each batch, starting with the r-th. Statistics over
a batch are then computed over the same groups as in one process.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray as Array
from torch.utils.data import DataLoader, Dataset

from dreamportrait.core.errors import DataError
from dreamportrait.data.dataset import Batch, Conditions, Draw, Example, TrainingData, collate
from dreamportrait.text.encoder import PromptEncoder

_log = logging.getLogger(__name__)


class _Epoch(NamedTuple):
    images: Array
    captions: Array
    fakes: Array
    fake_captions: Array


class Order:
    """Maps the number of an image in the stream to its Draw."""

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


Unreadable = dict[int, str]  # numbers of pictures that cannot be read, with the reasons
_TRIES = 10  # a row of pictures that cannot be read is no accident
_UNEVEN = 1.1  # ratio of the most and the fewest pictures of a process that is worth a warning


class _Read(Dataset["tuple[Example | None, Unreadable]"]):
    """Returns an example, and the pictures that could not be read in its place.

    An error that is raised in a reader process would come as a traceback.
    """

    def __init__(self, data: TrainingData, skip: bool) -> None:
        self.data, self.tries = data, min(_TRIES, len(data)) if skip else 1

    def __getitem__(self, draw: Draw) -> tuple[Example | None, Unreadable]:
        bad: Unreadable = {}
        for number in range(draw.image, draw.image + self.tries):
            number %= len(self.data)
            try:
                return self.data[draw._replace(image=number)], bad
            except DataError as error:
                bad[number] = str(error)
        return None, bad


def _collate(read: Sequence[tuple[Example | None, Unreadable]]) -> tuple[Batch | None, list[Unreadable]]:
    """Return the batch, None if one of its examples is missing, and the pictures that could not be read."""
    examples = [example for example, _ in read if example is not None]
    return collate(examples) if len(examples) == len(read) else None, [bad for _, bad in read if bad]


class ShardOrder(Order):
    """An order in which every process reads shards of its own, and no others.

    Shards are dealt out by size. Each process goes through its own pictures again and again. Where shards do not divide
    evenly, the pictures of a process that has fewer come more often. The order depends on the number of processes.
    """

    def __init__(self, shards: Sequence[int], seed: int, processes: int) -> None:
        super().__init__(len(shards), seed)
        owners = _dealt(shards, processes)
        self.own = [np.flatnonzero(owners == process) for process in range(processes)]  # pictures of each process
        counts = [len(own) for own in self.own]
        if not all(counts):
            raise ValueError(
                f"{len(set(shards))} shards for {processes} processes, and each reads its own; prepare the data with "
                "more, smaller shards (--per-shard), or leave data.own_shards out"
            )
        if (ratio := max(counts) / min(counts)) > _UNEVEN:
            _log.warning(
                "own shards: processes have %d to %d pictures, so some pictures come %.2f times as often as others; "
                "more, smaller shards (--per-shard) divide more evenly",
                *(min(counts), max(counts), ratio),
            )
        self._turn = lru_cache(maxsize=2 * processes)(self._make_turn)

    def draw(self, number: int) -> Draw:
        place, process = divmod(number, len(self.own))
        turn, place = divmod(place, len(self.own[process]))
        return super().draw(number)._replace(image=int(self._turn(process, turn)[place]))

    def _make_turn(self, process: int, turn: int) -> Array:
        rng = np.random.Generator(np.random.PCG64([self.seed, turn, process + 1]))  # [seed, turn, 0] is [seed, turn]
        return rng.permutation(self.own[process])


def _dealt(shards: Sequence[int], processes: int) -> Array:
    """Return the process of each picture: the largest shard goes to the process with the fewest pictures so far."""
    numbers, counts = np.unique(np.asarray(shards), return_counts=True)
    owner, load = {}, [0] * processes
    for i in sorted(range(len(numbers)), key=lambda i: (-counts[i], i)):
        process = load.index(min(load))
        owner[int(numbers[i])] = process
        load[process] += int(counts[i])
    return np.array([owner[int(shard)] for shard in shards])


class Loader:
    """Iterates over one process's batches, from image number `images` to `total`, and advances `images`."""

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
        workers: int = 0,  # processes that read pictures
        real_text: bool = False,  # whether to encode the pictures' own captions as well
        shards: Sequence[int] | None = None,  # of the pictures: each process then reads its own. None = any picture
        skip: bool = False,  # pictures that cannot be read; otherwise, they are an error
    ) -> None:
        if batch % processes:
            raise ValueError(f"batch={batch}: does not divide among {processes} processes; choose a multiple")
        if not 0 <= rank < processes:
            raise ValueError(f"rank={rank}: must be from 0 to {processes - 1}")
        self.data, self.text = data, text
        self.order = Order(len(data), seed) if shards is None else ShardOrder(shards, seed, processes)
        self.batch, self.total, self.rank, self.processes = batch, total, rank, processes
        self.workers, self.real_text = workers, real_text
        self.images = 0  # handed out, over all processes
        self.skip, self.skipped = skip, 0  # how often this process skipped a picture that it could not read
        self._named: set[int] = set()

    def __len__(self) -> int:
        """Return the number of batches of the whole run.

        This includes the batches before a run was continued, because Lightning counts them as well.
        """
        return self.total // self.batch

    def __iter__(self) -> Iterator[Batch]:
        plain = DataLoader(
            _Read(self.data, self.skip),
            batch_sampler=self._shares(range(self.images, len(self) * self.batch, self.batch)),
            collate_fn=_collate,
            num_workers=self.workers,
            # Workers are not forked, because this process may hold threads and a CUDA context.
            multiprocessing_context="forkserver" if self.workers else None,
            generator=torch.Generator().manual_seed(0),  # the default would draw from training's global generator
        )
        for found, unreadable in plain:
            if found is None:
                raise DataError(_reason(unreadable, self.skip))
            self._note(unreadable)
            self.images += self.batch
            real = self._with_text(found.real) if self.real_text else found.real
            yield Batch(found.pixels, real, self._with_text(found.fake))

    def _note(self, unreadable: list[Unreadable]) -> None:
        """Count the pictures that were skipped, and name each once."""
        for number, reason in (item for bad in unreadable for item in bad.items()):
            self.skipped += 1
            if number not in self._named:
                self._named.add(number)
                _log.warning("picture %d is skipped, the next one takes its place: %s", number, reason)

    def state_dict(self) -> dict[str, int]:
        return {"images": self.images}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        images = state["images"]
        if images < 0 or images % self.batch:
            raise ValueError(
                f"{images} images are no whole number of batches of {self.batch}; "
                "continue the run with a batch size that divides this number"
            )
        self.images = images

    def _shares(self, starts: range) -> Iterator[list[Draw]]:
        for first in starts:
            yield [self.order.draw(k) for k in range(first + self.rank, first + self.batch, self.processes)]

    def _with_text(self, conditions: Conditions) -> Conditions:
        return Conditions(conditions.camera, conditions.words, self.text.encode(conditions.prompts))


def _reason(unreadable: list[Unreadable], skip: bool) -> str:
    """Return the message for a batch that cannot be read."""
    bad = max(unreadable, key=len)
    first = next(iter(bad.values()))
    if not skip:
        return f"{first}. Or skip and count such pictures: data.unreadable=skip"
    return f"{len(bad)} pictures in a row cannot be read, so the data set itself is broken. The first: {first}"
