"""Reads official network snapshots: the names that they may mention, and the networks in them.

Only stored values are read: constructor arguments, a few attributes, tensors. Snapshots also contain source text for
rebuilding their classes; it is ignored.
"""

import hashlib
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamportrait.core.errors import SnapshotError, UnsafePickleError, listed, shown
from dreamportrait.weights.pickle_reader import Budget, Name, PickleReader, StandIn, Vocabulary, empty_dict
from dreamportrait.weights.torch_storage import TensorView, rebuild_parameter, rebuild_tensor, storage_call
from eg3d_ops.planes import PLANE_AXES

# Limits far above the official FFHQ 512 snapshot: 0.37 GB, 70 thousand instructions, 200 modules and tensors per
# network.
MAX_BYTES = 2 * 2**30
MAX_INSTRUCTIONS = 1_000_000
MAX_PARTS = 10_000  # modules, tensors or argument values of one network
MAX_DEPTH = 20  # nesting of modules, and of arguments

# Modules that are pickled by reference. All others store their class name themselves.
_PLAIN_CLASSES = (
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.activation", "Softplus"),
    ("training.triplane", "OSGDecoder"),
    ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
    ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    ("training.volumetric_rendering.ray_sampler", "RaySampler"),
)
_NUMPY_LAYOUTS = {"b1": "<?", "i1": "<b", "u1": "<B", "i4": "<i", "i8": "<q", "f2": "<e", "f4": "<f", "f8": "<d"}


@dataclass(eq=False)
class Module(StandIn):
    """A stored network module: its class name, and its attributes in a plain dict."""

    class_name: str
    state: dict[Any, Any] | None = None

    def set_state(self, state: object) -> None:
        if self.state is not None or type(state) is not dict:
            raise UnsafePickleError(f"a second state, or one that is no dict, for a {shown(self.class_name)}")
        special = [shown(key) for key in state if isinstance(key, str) and key.startswith("__") and key.endswith("__")]
        if special:
            raise UnsafePickleError(f"a state that sets {listed(special)} of a {shown(self.class_name)}")
        self.state = state

    def get(self, key: str) -> Any:
        return (self.state or {}).get(key)

    def part(self, key: str, kind: type) -> Any:
        """Return an attribute that every module has, or raise SnapshotError."""
        value = self.get(key)
        if type(value) is not kind:
            raise SnapshotError(f"a {shown(self.class_name)} has no {key}")
        return value


@dataclass(frozen=True)
class _NumpyType(StandIn):
    layout: str

    def set_state(self, state: object) -> None:
        plain = (None, None, None, -1, -1, 0)  # no fields, no sub-arrays
        if not (type(state) is tuple and len(state) == 8 and state[1] in ("<", "|") and state[2:] == plain):
            raise UnsafePickleError("a numpy type with parts, or not little-endian")


def _reconstruct(arguments: tuple) -> Module:
    """Return the stored module. Replaces the official function, which compiles the source text in its argument."""
    match arguments:
        case ({"type": "class", "version": 6, "class_name": str(class_name), "state": dict(state)},):
            module = Module(class_name)
            module.set_state(state)
            return module
    raise SnapshotError("a persistent object is not described by type 'class', version 6, class_name and state")


def _numpy_type(arguments: tuple) -> _NumpyType:
    match arguments:
        case (str(code), False, True) if code in _NUMPY_LAYOUTS:
            return _NumpyType(_NUMPY_LAYOUTS[code])
    raise SnapshotError("a numpy type other than a plain number")


def _numpy_scalar(arguments: tuple) -> float:
    match arguments:
        case (_NumpyType(layout), memoryview() as data) if len(data) == struct.calcsize(layout):
            return struct.unpack(layout, data)[0]
    raise SnapshotError("a numpy number is not described by type and bytes")


def _vocabulary(budget: Budget) -> Vocabulary:
    calls = {
        Name("collections", "OrderedDict"): empty_dict,
        Name("numpy", "dtype"): _numpy_type,
        Name("numpy.core.multiarray", "scalar"): _numpy_scalar,  # NumPy 1
        Name("numpy._core.multiarray", "scalar"): _numpy_scalar,  # NumPy 2
        Name("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        Name("torch.storage", "_load_from_bytes"): storage_call(budget),
        Name("torch_utils.persistence", "_reconstruct_persistent_obj"): _reconstruct,
    }
    classes = {Name(module, name): lambda name=name: Module(name) for module, name in _PLAIN_CLASSES}
    return Vocabulary(calls, {**classes, Name("dnnlib.util", "EasyDict"): dict})


@dataclass(frozen=True)
class Snapshot:
    """The top-level entries, hash and size of a file."""

    entries: dict[Any, Any]
    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class OfficialNetwork:
    """The parts of a stored network that a conversion needs."""

    init_kwargs: dict[str, Any]
    attributes: dict[str, Any]  # those of the requested attributes that exist
    tensors: dict[str, TensorView]  # under their state_dict names


def read_snapshot(path: str | Path) -> Snapshot:
    """Read an official network-snapshot-*.pkl without executing anything in it."""
    data = _read_file(Path(path))
    budget = Budget(MAX_INSTRUCTIONS)
    reader = PickleReader(memoryview(data), _vocabulary(budget), budget)
    entries = reader.load()
    if type(entries) is not dict:
        raise SnapshotError(f"the pickle holds a {type(entries).__name__}; an official snapshot is a dict of networks")
    if reader.position != len(data):
        raise SnapshotError(f"{len(data) - reader.position} bytes follow the end of the pickle")
    return Snapshot(entries, hashlib.sha256(data).hexdigest(), len(data))


def _read_file(path: Path) -> bytearray:
    if not path.is_file():
        raise SnapshotError("there is no such file" if not path.exists() else "this is not a regular file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SnapshotError(f"{size} bytes; official snapshots have about 350 million")
    data = bytearray(size)  # writable, because torch.frombuffer needs that
    with path.open("rb") as file:
        if file.readinto(data) != size or file.read(1):
            raise SnapshotError("the file changes while it is read")
    _recognise(bytes(data[:4096]))
    return data


def _recognise(head: bytes) -> None:
    """Raise SnapshotError with the kind of file if it is one that is often mistaken for a snapshot."""
    if not head:
        raise SnapshotError("the file is empty, the download failed: fetch it again")
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--)", head, re.IGNORECASE):
        title = re.search(rb"<title>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
        called = f" ({shown(title[1].decode('utf-8', 'replace').strip())})" if title else ""
        raise SnapshotError(f"this is a web page{called}, the download failed: fetch the file again")
    if head.startswith(b"version https://git-lfs"):
        raise SnapshotError("this is a Git LFS pointer, not the file: run `git lfs pull`")
    if head.startswith(b"PK\x03\x04"):
        raise SnapshotError("this is a zip archive, as torch.save writes now; official snapshots are plain pickles")
    if head.startswith(b"\x1f\x8b"):
        raise SnapshotError("this is gzip-compressed; official snapshots are plain pickles")
    if not head.startswith(b"\x80"):
        raise SnapshotError("this is no pickle (of protocol 2 or later), so it is no official snapshot")


def find_network(snapshot: Snapshot, key: str, class_name: str, attributes: tuple[str, ...] = ()) -> OfficialNetwork:
    """Return the network under a top-level key."""
    module = snapshot.entries.get(key)
    if not isinstance(module, Module):
        present = sorted(shown(str(name)) for name, value in snapshot.entries.items() if value is not None)
        raise SnapshotError(f"the snapshot has no network {key!r}; its entries are {listed(present) or 'none'}")
    if module.class_name != class_name:
        raise SnapshotError(f"{key} is a {shown(module.class_name)}; an official one is a {class_name!r}")
    if module.get("_init_args") != ():
        raise SnapshotError(f"{key} was constructed from unnamed arguments; official ones are named")
    arguments = _plain(module.part("_init_kwargs", dict), f"{key}._init_kwargs", _counter(), 0)
    state = module.state or {}
    found = {name: _plain(state[name], f"{key}.{name}", _counter(), 0) for name in attributes if name in state}
    return OfficialNetwork(arguments, found, dict(_tensors(module, "", _counter(), 0)))


def plane_axes(snapshot: Snapshot, key: str) -> str:
    """Return the name of the plane arrangement that the network's renderer uses."""
    renderer = snapshot.entries[key].part("_modules", dict).get("renderer")
    bases = renderer.get("plane_axes") if isinstance(renderer, Module) else None
    if not (isinstance(bases, TensorView) and bases.shape == (3, 3, 3)):
        raise SnapshotError(f"{key}.renderer.plane_axes is not there, or not of size (3, 3, 3)")
    # Each plane has an orthonormal basis; its first row is the axis along the width, its second that along the height.
    rows = bases.tensor().double().tolist()
    axes = tuple((_axis(plane[0]), _axis(plane[1])) for plane in rows)
    for name, known in PLANE_AXES.items():
        if axes == known:
            return name
    raise SnapshotError(f"{key}.renderer.plane_axes is {rows}: none of the known arrangements {', '.join(PLANE_AXES)}")


def _axis(row: list[float]) -> int | None:
    return row.index(1) if sorted(row) == [0, 0, 1] else None


def _counter() -> Iterator[int]:
    return iter(range(MAX_PARTS))


def _count(parts: Iterator[int], depth: int, where: str) -> None:
    """Count a part, and raise SnapshotError at the limits: shared or circular parts could make a small file endless."""
    if next(parts, None) is None or depth > MAX_DEPTH:
        raise SnapshotError(f"{shown(where)} has more parts, or deeper nested ones, than any official network")


def _plain(value: object, where: str, parts: Iterator[int], depth: int) -> Any:
    """Return a copy that consists of plain values only."""
    _count(parts, depth, where)
    if isinstance(value, dict):
        if not all(isinstance(key, str) and len(key) <= 100 for key in value):
            raise SnapshotError(f"{shown(where)} has a key that is no short text")
        return {key: _plain(item, f"{where}.{key}", parts, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, where, parts, depth + 1) for item in value)
    short = isinstance(value, str) and len(value) <= 1000
    number = isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**53
    if not (value is None or short or number):
        raise SnapshotError(f"{shown(where)} is a {type(value).__name__}, or too large; plain arguments are expected")
    return value


def _tensors(module: Module, prefix: str, parts: Iterator[int], depth: int) -> Iterator[tuple[str, TensorView]]:
    _count(parts, depth, prefix)
    unsaved = module.part("_non_persistent_buffers_set", set)
    own = {**module.part("_parameters", dict), **module.part("_buffers", dict)}
    for name, value in own.items():
        _count(parts, depth, prefix)
        if value is None or name in unsaved:
            continue
        if not (_is_name(name) and isinstance(value, TensorView)):
            raise SnapshotError(f"{shown(prefix + str(name))} is not a tensor but a {type(value).__name__}")
        yield prefix + name, value
    for name, child in module.part("_modules", dict).items():
        if child is None:
            continue
        if not (_is_name(name) and isinstance(child, Module)):
            raise SnapshotError(f"{shown(prefix + str(name))} is not a module but a {type(child).__name__}")
        yield from _tensors(child, f"{prefix}{name}.", parts, depth + 1)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and "." not in name
