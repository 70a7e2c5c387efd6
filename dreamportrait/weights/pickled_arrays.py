"""Reads NumPy arrays, sparse matrices and chumpy arrays inside pickles, of Python 2 and 3, without executing them.

Every class of such a file becomes a stand-in that only keeps its state; `array_of` makes arrays of those that are
wanted, after their sizes were compared with the bytes in the file. The names that a file may mention are `VOCABULARY`.

Pickles of Python 2 hold raw data as byte strings, which the reader takes as text in Latin-1, one character a byte.
"""

import ast
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray as Array

from dreamportrait.core.errors import SnapshotError, UnsafePickleError, shown
from dreamportrait.weights.pickle_reader import Budget, Name, PickleReader, StandIn, Vocabulary, empty_dict
from dreamportrait.weights.torch_storage import TensorView, rebuild_tensor, storage_call

# Limits far above FLAME's generic_model.pkl: 53 MB and some hundred instructions.
MAX_BYTES = 512 * 2**20
MAX_INSTRUCTIONS = 100_000
MAX_RANK = 8
KIND = "head model"
NPY_MAGIC = b"\x93NUMPY"
OBJECT = "O"
_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


@dataclass(frozen=True)
class LatinBytes(StandIn):
    """Bytes that a pickle of protocol 2 gives as text. They are encoded only when they are wanted."""

    text: str


@dataclass(eq=False)
class NumpyType(StandIn):
    code: str  # such as "f4", or OBJECT

    def set_state(self, state: object) -> None:
        plain = (None, None, None, -1, -1)  # no fields, no sub-arrays, the usual size and alignment
        match state:
            case (int(), "<" | "|", *rest) if tuple(rest[:5]) == plain and len(rest) == 6:
                return
        raise UnsafePickleError("a numpy type with parts, or not little-endian")


@dataclass(eq=False)
class NumpyArray(StandIn):
    shape: tuple[int, ...] = (0,)
    code: str = ""
    columns_first: bool = False
    data: Any = None  # bytes in one of their forms, or the list of objects

    def set_state(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), NumpyType(code), bool() | 0 | 1 as columns_first, data):
                pass
            case _:
                raise SnapshotError("an array is not described by version, shape, type, order and data")
        if len(shape) > MAX_RANK or not all(type(n) is int and n >= 0 for n in shape):
            raise SnapshotError("the shape of an array must be a few non-negative integers")
        count = math.prod(shape)
        size = count if code == OBJECT else count * np.dtype(code).itemsize
        if _length(data, code) != size:
            raise SnapshotError(f"an array of shape {list(shape)} needs {size} bytes or objects of data; it has others")
        self.shape, self.code, self.columns_first, self.data = shape, code, bool(columns_first), data


def _length(data: object, code: str) -> int:
    """Return how many bytes or objects the data of an array has; -1 for anything else."""
    if code == OBJECT:
        return len(data) if isinstance(data, list) else -1
    if isinstance(data, LatinBytes):
        return len(data.text)
    return len(data) if isinstance(data, memoryview | str) else -1


@dataclass(eq=False)
class Plain(StandIn):
    """An object of one of the classes that keep their values in a dict: a sparse matrix, or a chumpy array."""

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)

    def set_state(self, state: object) -> None:
        if type(state) is not dict:
            raise UnsafePickleError(f"a state that is no dict for a {self.kind}")
        self.state = state


SPARSE, CHUMPY = "sparse matrix", "chumpy array"
NDARRAY, DTYPE = Name("numpy", "ndarray"), Name("numpy", "dtype")
_KINDS = {
    Name("scipy.sparse.csc", "csc_matrix"): SPARSE,  # SciPy of Python 2
    Name("scipy.sparse._csc", "csc_matrix"): SPARSE,
    Name("chumpy.ch", "Ch"): CHUMPY,
    Name("chumpy", "Ch"): CHUMPY,
}
_OBJECTS = frozenset({Name("__builtin__", "object"), Name("builtins", "object")})


def _encode(arguments: tuple) -> LatinBytes:
    match arguments:
        case (str(text), "latin1" | "latin-1"):
            return LatinBytes(text)
    raise UnsafePickleError("an encoding other than of text in Latin-1")


def _new_array(arguments: tuple) -> NumpyArray:
    match arguments:
        case (Name() as kind, (0,), LatinBytes("b") | "b" | memoryview()) if kind == NDARRAY:
            return NumpyArray()
    raise UnsafePickleError("an array that is not an empty numpy.ndarray at first")


def _new_type(arguments: tuple) -> NumpyType:
    match arguments:
        case (str(code), bool() | 0 | 1, bool() | 0 | 1) if code in _CODES or code in ("O8", "O4"):
            return NumpyType(OBJECT if code[0] == OBJECT else code)
    raise SnapshotError("a numpy type other than a plain number")


def _new_object(arguments: tuple) -> Plain:
    """Return an object of a listed class. Replaces copyreg._reconstructor."""
    match arguments:
        case (Name() as kind, Name() as base, None) if kind in _KINDS and base in _OBJECTS:
            return Plain(_KINDS[kind])
    raise UnsafePickleError("an object made from something else than a listed class")


def _new_set(arguments: tuple) -> set[object]:
    """Return an empty set: chumpy keeps names of unsaved values in one, which nobody needs."""
    match arguments:
        case () | (list(),):
            return set()
    raise SnapshotError("a set that is not made from a list")


def vocabulary(budget: Budget) -> Vocabulary:
    """Return the names that head models and landmark files may mention, in pickles of Python 2 and 3."""

    calls = {
        **{Name(f"numpy.{core}.multiarray", "_reconstruct"): _new_array for core in ("core", "_core")},
        DTYPE: _new_type,
        Name("_codecs", "encode"): _encode,
        **{Name(module, "_reconstructor"): _new_object for module in ("copy_reg", "copyreg")},
        **{Name(module, "set"): _new_set for module in ("__builtin__", "builtins")},
        Name("collections", "OrderedDict"): empty_dict,
        Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        Name("torch.storage", "_load_from_bytes"): storage_call(budget),
    }
    classes = {name: lambda kind=kind: Plain(kind) for name, kind in _KINDS.items()}
    return Vocabulary(calls, classes, _OBJECTS | {NDARRAY}, python2_text=True, kind=KIND)


def read_stand_ins(path: str | Path) -> object:
    """Return the value of a pickle, with stand-ins for its objects."""
    data = _content(Path(path))
    if not data.startswith(b"\x80"):
        raise SnapshotError(f"{path} is no pickle of protocol 2 or later; {_guess(data)}")
    return _value(path, memoryview(data))


def read_object_array(path: str | Path) -> object:
    """Return the single object in a .npy file of type object, such as a dict of arrays."""
    data = _content(Path(path))
    found = re.match(rb"\x93NUMPY([\x01-\x03])\x00", data[:8])
    if not found:
        raise SnapshotError(f"{path} is no .npy file; {_guess(data)}")
    wide = 2 if found[1] == b"\x01" else 4
    begin = 8 + wide
    end = begin + int.from_bytes(data[8:begin], "little")
    try:
        header = ast.literal_eval(data[begin:end].decode("latin-1").strip()) if end < min(len(data), 10_000) else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        header = None
    if not (isinstance(header, dict) and header.get("descr") in ("|O", "O") and header.get("shape") == ()):
        raise SnapshotError(f"{path} must hold a single object, such as a dict of arrays")
    value = _value(path, memoryview(data)[end:])
    match value:
        case NumpyArray((), code, _, [single]) if code == OBJECT:
            return single
    raise SnapshotError(f"{path} must hold a single object, such as a dict of arrays")


def _value(path: str | Path, data: memoryview) -> object:
    budget = Budget(MAX_INSTRUCTIONS, KIND)
    reader = PickleReader(data, vocabulary(budget), budget)
    try:
        value = reader.load()
        if reader.position != len(data):
            raise SnapshotError(f"{len(data) - reader.position} bytes follow the end of the pickle")
    except SnapshotError as error:
        raise type(error)(f"{path}: {error}") from None
    return value


def _content(path: Path) -> bytearray:
    if not path.is_file():
        raise SnapshotError(f"{path} is not there" if not path.exists() else f"{path} is not a regular file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise SnapshotError(f"{path} has {size} bytes, at most {MAX_BYTES} are read")
    return bytearray(path.read_bytes())  # writable, because torch.frombuffer needs that


def _guess(data: bytearray) -> str:
    if not data:
        return "the file is empty: fetch it again"
    if data.lstrip()[:1] == b"<":
        return "it looks like a web page: fetch the file again"
    if data.startswith(b"PK\x03\x04"):
        return "it is a zip archive: unpack it and name the file in it"
    return "name another file"


def array_of(value: object, what: str) -> Array:
    """Return the array that a stand-in describes, or raise SnapshotError."""
    if isinstance(value, TensorView):
        tensor: Array = value.tensor().numpy()
        return tensor
    if isinstance(value, NumpyArray) and value.code and value.code != OBJECT:
        data = value.data.text if isinstance(value.data, LatinBytes) else value.data
        raw = data.encode("latin-1") if isinstance(data, str) else data
        order = "F" if value.columns_first else "C"
        array: Array = np.frombuffer(raw, np.dtype(value.code).newbyteorder("<")).reshape(value.shape, order=order)  # type: ignore[call-overload]
        return array
    if isinstance(value, Plain) and value.kind == CHUMPY and not isinstance(value.state.get("x"), Plain):
        return array_of(value.state.get("x"), what)
    if isinstance(value, Plain) and value.kind == SPARSE:
        return _dense(value.state, what)
    raise SnapshotError(f"{shown(what)} is a {type(value).__name__}, not an array")


def _dense(state: dict[Any, Any], what: str) -> Array:
    """Return a matrix that is stored column by column: the rows and the values of each column's entries."""
    shape = state.get("_shape", state.get("shape"))
    data, rows, ends = (array_of(state.get(key), f"{what}.{key}") for key in ("data", "indices", "indptr"))
    match shape:
        case (int(height), int(width)) if 0 <= height <= 2**20 and 0 <= width <= 2**20 and height * width <= 2**26:
            pass
        case _:
            raise SnapshotError(f"{shown(what)} is a sparse matrix without two sizes, or too large")
    known = ends.ndim == 1 and ends.dtype.kind in "iu"
    counts: Array = np.diff(ends.astype(np.int64)).astype(np.int64) if known else np.array([-1])
    whole = len(ends) == width + 1 and (counts >= 0).all() and int(counts.sum()) == data.size == rows.size
    if not whole or rows.dtype.kind not in "iu" or data.ndim != 1 or (rows < 0).any() or (rows >= height).any():
        raise SnapshotError(f"{shown(what)} is a damaged sparse matrix")
    dense = np.zeros((height, width), data.dtype)
    np.add.at(dense, (rows.astype(np.int64), np.repeat(np.arange(width), counts)), data)
    return dense
