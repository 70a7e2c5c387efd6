"""Reads tensors inside pickles, in torch.save's older stream format, as views of the file.

A storage is a separate stream: four pickles (magic number, protocol, facts about the writing machine, a persistent id
that describes the storage), a fifth with the list of storage keys, then the number of elements and the raw data.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamportrait.core.errors import SnapshotError, UnsafePickleError
from dreamportrait.weights.pickle_reader import Budget, Name, PickleReader, StandIn, Vocabulary

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_RANK = 16

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
STORAGE_CLASSES = {Name("torch", name): dtype for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Storage(StandIn):
    dtype: torch.dtype
    data: memoryview  # raw, little-endian

    def __len__(self) -> int:
        return len(self.data) // self.dtype.itemsize


@dataclass(frozen=True)
class TensorView(StandIn):
    """A description of a tensor that is not created yet. The tensor was checked to lie inside its storage."""

    dtype: torch.dtype
    data: memoryview  # from its first element to its last
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Return a contiguous copy."""
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(bytearray(self.data), dtype=self.dtype)  # the copy is aligned; the file may not be
        return flat.as_strided(self.shape, self.stride).contiguous()


@dataclass(frozen=True)
class _Description:
    """A storage as described by its persistent id."""

    dtype: torch.dtype
    key: str
    count: int


def _describe(persistent_id: object) -> _Description:
    match persistent_id:
        case ("storage", Name() as kind, str(key), str(location), int(count), None) if (
            type(persistent_id) is tuple
            and kind in STORAGE_CLASSES
            and re.fullmatch(r"cpu|cuda(:\d{1,3})?", location)  # its former device; it is read into main memory
            and count >= 0
        ):
            return _Description(STORAGE_CLASSES[kind], key, count)
    raise UnsafePickleError("a persistent id that is not ('storage', storage class, key, location, count, None)")


_NOTHING = Vocabulary()
_DESCRIPTION = Vocabulary(mentions=frozenset(STORAGE_CLASSES), persistent=_describe)


def read_storage(data: memoryview, budget: Budget) -> Storage:
    """Return the storage in `data`. Replaces torch.storage._load_from_bytes."""

    def load(vocabulary: Vocabulary = _NOTHING) -> object:
        nonlocal data
        reader = PickleReader(data, vocabulary, budget)
        value = reader.load()
        data = data[reader.position :]
        return value

    if load() != MAGIC_NUMBER or load() != PROTOCOL:
        raise SnapshotError("a storage does not begin with torch.save's magic number and protocol")
    machine = load()
    if not (isinstance(machine, dict) and machine.get("little_endian") is True):
        raise SnapshotError("a storage was not written by a little-endian machine")
    described = load(_DESCRIPTION)
    if not isinstance(described, _Description):
        raise SnapshotError(f"a storage is described by a {type(described).__name__}, not by a persistent id")
    keys = load()
    if not (isinstance(keys, list) and len(keys) == 1 and isinstance(keys[0], str) and keys[0] == described.key):
        raise SnapshotError("a storage's list of keys does not name that storage alone")
    size = 8 + described.count * described.dtype.itemsize  # the count again, then the data
    if len(data) != size or data[:8] != struct.pack("<q", described.count):
        raise SnapshotError(
            f"a storage of {described.count} elements needs {size} bytes and has {len(data)}, or repeats another count"
        )
    return Storage(described.dtype, data[8:])


def rebuild_tensor(arguments: tuple) -> TensorView:
    """Return a view of a tensor in its storage. Replaces torch._utils._rebuild_tensor_v2."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(stride), bool(), dict(), *metadata) if (
            metadata in ([], [None], [{}])  # other metadata would request conjugated or negated numbers
        ):
            return _view(storage, offset, shape, stride)
    raise SnapshotError("a tensor is not described by storage, offset, size, stride, requires_grad and hooks")


def rebuild_parameter(arguments: tuple) -> TensorView:
    """Return the view of a parameter's tensor. Replaces torch._utils._rebuild_parameter."""
    match arguments:
        case (TensorView() as view, bool(), dict()):
            return view
    raise SnapshotError("a parameter is not described by tensor, requires_grad and hooks")


def _view(storage: Storage, offset: int, shape: tuple, stride: tuple) -> TensorView:
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > MAX_RANK or not all(type(n) is int and n >= 0 for n in numbers):
        raise SnapshotError(
            "a tensor's offset, size and stride must be non-negative integers, one stride per size, few dimensions"
        )
    if 0 in shape:
        return TensorView(storage.dtype, storage.data[:0], shape, stride)
    steps = [(s, n) for n, s in zip(shape, stride, strict=True) if n > 1]
    last = 0
    for step, count in sorted(steps):
        if step <= last:
            raise SnapshotError(f"a tensor of size {shape} and stride {stride} overlaps itself")
        last += step * (count - 1)
    if offset + last >= len(storage):
        described = f"size {shape}, stride {stride}, offset {offset}"
        raise SnapshotError(f"a tensor of {described} lies outside of its storage of {len(storage)} elements")
    begin, end = (n * storage.dtype.itemsize for n in (offset, offset + last + 1))
    return TensorView(storage.dtype, storage.data[begin:end], shape, stride)


def storage_call(budget: Budget) -> Callable[[tuple], StandIn]:
    """Return what replaces torch.storage._load_from_bytes in a vocabulary."""

    def storage(arguments: tuple) -> StandIn:
        match arguments:
            case (memoryview() as data,):
                return read_storage(data, budget)
        raise SnapshotError("a storage is not given as bytes")

    return storage
