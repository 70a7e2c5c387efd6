"""Pickles that do harm when unpickled, or that only look like snapshots. They are assembled by hand.

`canary` is a file that a pickle tries to create: by a shell, by Python code, or by importing a module.
"""

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch

MARK, STOP, REDUCE, BUILD, NEWOBJ, EMPTY_TUPLE, EMPTY_DICT = b"(", b".", b"R", b"b", b"\x81", b")", b"}"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def raw(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(17, "little", signed=True)[:16]
    return b"\x8a\x10" + data


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + MARK + b"".join(arguments) + b"t" + REDUCE


def entry(value: bytes, key: str = "G_ema") -> bytes:
    """Return a snapshot with one value in it."""
    return b"\x80\x04}" + text(key) + value + b"s" + STOP


def shell(canary: Path) -> bytes:
    return text(f": > '{canary}'")


def python(canary: Path) -> bytes:
    return text(f"open({str(canary)!r}, 'w').close()")


STORAGE_CLASS = name("torch", "FloatStorage")


def described(
    kind: bytes = STORAGE_CLASS, location: bytes = text("cpu"), count: bytes = number(4), view: bytes = b"N"
) -> bytes:
    """Return the persistent id of a storage."""
    return MARK + text("storage") + kind + text("0") + location + count + view + b"tQ"


def storage(count: int = 4, *, identity: bytes | None = None, data: bytes = bytes(16), keys: tuple = ("0",)) -> bytes:
    """Return a storage in the older stream format of torch.save."""
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, facts))
    identity = identity or described(count=number(count))
    counted = struct.pack("<q", min(count, 2**63 - 1))
    return head + b"\x80\x02" + identity + STOP + pickle.dumps(list(keys), 2) + counted + data


def loaded(stream: bytes) -> bytes:
    return call(name("torch.storage", "_load_from_bytes"), raw(stream))


def tensor(
    offset: int = 0, size: tuple = (4,), stride: tuple = (1,), stream: bytes | None = None, more: bytes = b""
) -> bytes:
    def numbers(values: tuple) -> bytes:
        return MARK + b"".join(map(number, values)) + b"t"

    hooks = call(name("collections", "OrderedDict"))
    arguments = (loaded(stream or storage()), number(offset), numbers(size), numbers(stride), b"\x89", hooks, more)
    return call(name("torch._utils", "_rebuild_tensor_v2"), *arguments)


def persistent(state: bytes, class_name: str = "TriPlaneGenerator", version: int = 6) -> bytes:
    parts = {"type": text("class"), "version": number(version), "module_src": text(""), "class_name": text(class_name)}
    meta = b"}" + MARK + b"".join(text(key) + value for key, value in {**parts, "state": state}.items()) + b"u"
    return call(name("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)


SOFTPLUS = name("torch.nn.modules.activation", "Softplus") + EMPTY_TUPLE + NEWOBJ
OS_SYSTEM = name("os", "system")


class _Harm:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


def zip_checkpoint(canary: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(_Harm(canary), stream)
    return stream.getvalue()


# Pickles that Python's own unpickler executes, so that `canary` then exists, each with our reader's error.
EXECUTED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (lambda c: entry(call(OS_SYSTEM, shell(c))), "asks for 'os.system'"),
    "os.system outside of a dict": (lambda c: b"\x80\x04" + call(OS_SYSTEM, shell(c)) + STOP, "asks for 'os.system'"),
    "posix.system": (lambda c: entry(call(name("posix", "system"), shell(c))), "asks for 'posix.system'"),
    "eval": (lambda c: entry(call(name("builtins", "eval"), python(c))), "asks for 'builtins.eval'"),
    "exec": (lambda c: entry(call(name("builtins", "exec"), python(c))), "asks for 'builtins.exec'"),
    "exec under its old name": (
        lambda c: b"\x80\x02" + call(name("__builtin__", "exec"), python(c)) + STOP,
        "asks for '__builtin__.exec'",
    ),
    "getattr chain": (
        lambda c: entry(
            call(
                call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("system")),
                shell(c),
            )
        ),
        "asks for 'builtins.getattr'",
    ),
    "dotted name": (
        lambda c: entry(call(text("torch.serialization") + text("os.system") + b"\x93", shell(c))),
        "asks for 'torch.serialization.os.system'",
    ),
    "reduce inside a storage": (
        lambda c: entry(loaded(storage(identity=call(OS_SYSTEM, shell(c))))),
        "asks for 'os.system'",
    ),
    "reduce instead of a storage": (
        lambda c: entry(loaded(b"\x80\x02" + call(OS_SYSTEM, shell(c)) + STOP)),
        "asks for 'os.system'",
    ),
    "storage in a storage": (
        lambda c: entry(loaded(storage(identity=loaded(storage(identity=call(OS_SYSTEM, shell(c))))))),
        "asks for 'torch.storage._load_from_bytes'",
    ),
    "INST": (lambda c: entry(MARK + shell(c) + b"ios\nsystem\n"), "instruction 0x69 INST"),
    "OBJ": (lambda c: entry(MARK + OS_SYSTEM + shell(c) + b"o"), "asks for 'os.system'"),
    "zip archive as a storage": (
        lambda c: entry(call(name("torch.storage", "_load_from_bytes"), raw(zip_checkpoint(c)))),
        "no pickle of protocol 2 or later",
    ),
    "import": (lambda c: entry(name(c.stem, "value")), "asks for '.*canary"),
}


# Pickles unlike any official snapshot, though Python may load them without harm, each with our reader's error.
REFUSED: dict[str, tuple[bytes, str]] = {
    "INST of an allowed name": (entry(MARK + b"icollections\nOrderedDict\n"), "instruction 0x69 INST"),
    "OBJ of an allowed name": (entry(MARK + name("collections", "OrderedDict") + b"o"), "instruction 0x6f OBJ"),
    "NEWOBJ_EX of Popen": (
        entry(name("subprocess", "Popen") + EMPTY_TUPLE + EMPTY_DICT + b"\x92"),
        "asks for 'subprocess.Popen'",
    ),
    "NEWOBJ_EX of an allowed name": (
        entry(name("dnnlib.util", "EasyDict") + EMPTY_TUPLE + EMPTY_DICT + b"\x92"),
        "instruction 0x92 NEWOBJ_EX",
    ),
    "EXT1": (entry(b"\x82\x01"), "instruction 0x82 EXT1"),
    "EXT2": (entry(b"\x83\x01\x00"), "instruction 0x83 EXT2"),
    "EXT4": (entry(b"\x84\x01\x00\x00\x00"), "instruction 0x84 EXT4"),
    "buffers": (entry(b"\x97"), "instruction 0x97 NEXT_BUFFER"),
    "unknown instruction": (entry(b"\xff"), "instruction 0xff at byte"),
    "text instruction": (entry(b"I5\n"), "instruction 0x49 at byte"),
    # Names.
    "STACK_GLOBAL of numbers": (entry(b"K\x01K\x02\x93"), "named by a int and a int, not by text"),
    "STACK_GLOBAL of a name": (entry(SOFTPLUS + text("x") + b"\x93"), "named by a Module and a str"),
    "STACK_GLOBAL of nothing": (b"\x80\x04\x93.", "damaged at byte 3: a value is missing"),
    "attribute of an allowed name": (
        entry(text("torch.storage") + text("_load_from_bytes.__globals__") + b"\x93"),
        "asks for 'torch.storage._load_from_bytes.__globals__'",
    ),
    "name with control characters": (
        entry(text("os\x1b[2J") + text("system") + b"\x93"),
        r"asks for 'os\\x1b\[2J.system'",
    ),
    "name without an end": (entry(b"c" + b"x" * 300), "a name has no end"),
    "storage class at top level": (entry(STORAGE_CLASS), "asks for 'torch.FloatStorage'"),
    # Calls, instances and states.
    "call of text": (entry(call(text("os.system"), text("ls"))), "a call of a str"),
    "call of a module": (entry(call(SOFTPLUS)), "a call of a Module"),
    "call of a class": (
        entry(call(name("torch.nn.modules.activation", "Softplus"))),
        "a call of 'torch.nn.mod.*Softplus'",
    ),
    "call without a tuple": (
        entry(name("collections", "OrderedDict") + b"]R"),
        "arguments that are no tuple but a list",
    ),
    "instance of a function": (
        entry(name("torch.storage", "_load_from_bytes") + EMPTY_TUPLE + NEWOBJ),
        "an instance of 'torch.storage._load_from_bytes'",
    ),
    "instance with arguments": (
        entry(name("dnnlib.util", "EasyDict") + b"K\x01\x85" + NEWOBJ),
        "'dnnlib.util.EasyDict' made from 1 arguments",
    ),
    "state for a name": (
        entry(name("collections", "OrderedDict") + EMPTY_DICT + BUILD),
        "a state for 'collections.Ord",
    ),
    "state for a dict": (entry(EMPTY_DICT + EMPTY_DICT + BUILD), "a state for a dict"),
    "state for a tensor": (entry(tensor() + EMPTY_DICT + BUILD), "a state for a TensorView, which takes none"),
    "state that sets __class__": (
        entry(SOFTPLUS + EMPTY_DICT + text("__class__") + text("x") + b"s" + BUILD),
        "sets '__class__' of a 'Softplus'",
    ),
    "state that sets __setstate__": (
        entry(
            SOFTPLUS
            + EMPTY_DICT
            + text("__setstate__")
            + name("collections", "OrderedDict")
            + b"s"
            + BUILD
            + EMPTY_DICT
            + BUILD
        ),
        "sets '__setstate__' of a 'Softplus'",
    ),
    "state of slots": (entry(SOFTPLUS + b"N" + EMPTY_DICT + b"\x86" + BUILD), "one that is no dict, for a 'Softplus'"),
    "two states": (entry(SOFTPLUS + (EMPTY_DICT + BUILD) * 2), "a second state"),
    "dunder in a persistent object": (
        entry(persistent(EMPTY_DICT + text("__reduce__") + b"Ns")),
        "sets '__reduce__' of a 'TriPlaneGenerator'",
    ),
    "other persistence version": (entry(persistent(EMPTY_DICT, version=7)), "not described by type 'class', version 6"),
    "items for a module": (entry(SOFTPLUS + text("x") + b"Ns"), "items for a Module as if it were a dict"),
    "append to a name": (entry(name("collections", "OrderedDict") + b"Na"), "items for .* as if it were a list"),
    # Persistent ids.
    "persistent id": (entry(text("0") + b"Q"), "a persistent id outside of tensor data"),
    "persistent id as a line": (entry(b"P0\n"), "instruction 0x50 PERSID"),
    "persistent id of a module": (
        entry(loaded(storage(identity=MARK + text("module") + STORAGE_CLASS + text("a.py") + text("source") + b"tQ"))),
        "a persistent id that is not \\('storage'",
    ),
    "persistent id that is text": (
        entry(loaded(storage(identity=text("storage") + b"Q"))),
        "a persistent id that is not",
    ),
    "persistent id with a view": (
        entry(loaded(storage(identity=described(view=b"]")))),
        "a persistent id that is not",
    ),
    "persistent id of another place": (
        entry(loaded(storage(identity=described(location=text("cpu; import os"))))),
        "a persistent id that is not",
    ),
    "persistent id of another class": (
        entry(loaded(storage(identity=described(kind=name("torch.nn", "Linear"))))),
        "asks for 'torch.nn.Linear'",
    ),
    "persistent id with a negative count": (
        entry(loaded(storage(identity=described(count=number(-1))))),
        "a persistent id that is not",
    ),
    # Storages.
    "storage without magic number": (
        entry(loaded(pickle.dumps(5, 2))),
        "does not begin with torch.save's magic number",
    ),
    "storage that is a number": (
        entry(loaded(storage(identity=number(5)))),
        "described by a int, not by a persistent id",
    ),
    "storage with other keys": (entry(loaded(storage(keys=("0", "1")))), "does not name that storage alone"),
    "storage with less data": (entry(loaded(storage(data=bytes(15)))), "needs 24 bytes and has 23"),
    "storage with more data": (entry(loaded(storage(data=bytes(17)))), "needs 24 bytes and has 25"),
    "storage of 2^60 elements": (entry(loaded(storage(count=2**60))), f"needs {2**62 + 8} bytes and has 24"),
    "storage of 2^120 elements": (entry(loaded(storage(count=2**120))), f"needs {2**122 + 8} bytes and has 24"),
    "storage given as text": (entry(call(name("torch.storage", "_load_from_bytes"), text("x"))), "not given as bytes"),
    # Tensors.
    "tensor of 2^60 elements": (entry(tensor(size=(2**60,))), "lies outside of its storage of 4 elements"),
    "tensor expanded to 2^60": (entry(tensor(size=(2**60,), stride=(0,))), "overlaps itself"),
    "tensor overlapping itself": (entry(tensor(size=(2, 2), stride=(1, 1))), "overlaps itself"),
    "tensor with negative stride": (entry(tensor(stride=(-1,))), "must be non-negative integers"),
    "tensor with negative offset": (entry(tensor(offset=-1)), "must be non-negative integers"),
    "tensor behind its storage": (entry(tensor(offset=1)), "lies outside of its storage"),
    "tensor without enough strides": (entry(tensor(stride=())), "must be non-negative integers, one stride per size"),
    "tensor of rank 100": (entry(tensor(size=(1,) * 100, stride=(1,) * 100)), "one stride per size, few dimensions"),
    "tensor that is conjugated": (entry(tensor(more=b"}" + text("conj") + b"\x88s")), "a tensor is not described by"),
    # Lengths.
    "bytes of 2^60": (entry(b"\x8e" + struct.pack("<Q", 2**60)), f"cut short: {2**60} bytes wanted"),
    "bytes of 2^32": (entry(b"B" + b"\xff" * 4), "cut short: 4294967295 bytes wanted"),
    "text of 2^60": (entry(b"\x8d" + struct.pack("<Q", 2**60)), f"cut short: {2**60} bytes wanted"),
    "frame of 2^63": (b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.", f"cut short: a frame of {2**63} bytes"),
    "integer of 2^31 bytes": (entry(b"\x8b" + struct.pack("<I", 2**31)), "an integer of 2147483648 bytes"),
    "integer of 200 bytes": (entry(b"\x8a\xc8" + bytes(200)), "an integer of 200 bytes"),
    # Nesting and repetition.
    "brackets without end": (entry(MARK * 100_000), "values nested more than 500 deep"),
    "key that is a tuple": (b"\x80\x04})Ns.", "a key that is a tuple"),
    "key that is a large integer": (b"\x80\x04}" + number(2**61 - 1) + b"Ns.", "a key that is a int"),
    "member that is a list": (entry(b"\x8f(]\x90"), "a key that is a list"),
    "instructions without end": (b"\x80\x04" + b"N\x94" * 600_000, "far more instructions than any official snapshot"),
    "the same storage again and again": (
        b"\x80\x04"
        + name("torch.storage", "_load_from_bytes")
        + raw(storage())
        + b"\x85q\x00R"
        + (name("torch.storage", "_load_from_bytes") + b"h\x00R") * 100_000,
        "far more instructions than any official snapshot",
    ),
    # Damage.
    "stack that is empty": (b"\x80\x04.", "damaged at byte 3: a value is missing"),
    "value left over": (b"\x80\x04}}.", "values are left over"),
    "bracket left open": (b"\x80\x04}(}.", "values are left over"),
    "bracket never opened": (entry(b"t"), "a bracket was never opened"),
    "key without value": (entry(b"}(" + text("x") + b"u"), "a key has no value"),
    "memo that is empty": (entry(b"h\x07"), "value 7 was never stored"),
    "memo of nothing": (b"\x80\x04\x94.", "a value is missing"),
    "text that is not UTF-8": (entry(b"\x8c\x01\xff"), "text is not UTF-8"),
    "protocol 9": (b"\x80\x09}.", "pickle protocol 9"),
    "something behind the end": (b"\x80\x04}.more", "4 bytes follow the end"),
    "a list": (b"\x80\x04].", "the pickle holds a list"),
}
