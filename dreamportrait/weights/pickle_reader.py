"""Reads pickles without executing them.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever a program names. This
reader allows only the instructions and names that one kind of file needs. A name becomes a `Name`, an inert pair of
strings. The instructions "call" and "create" run only functions of this package that a `Vocabulary` lists, and only
`StandIn` objects of this package take a state. Nothing in the file is looked up, imported or compiled, and no methods
of values are called except those of dict, list and set.

The cost of a program is bounded too: each instruction makes at most one value and is counted against a `Budget`,
lengths are compared with the rest of the file before anything is read, and bytes are views, not copies.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dreamportrait.core.errors import SnapshotError, UnsafePickleError, shown

MAX_MARKS = 500  # open brackets; official snapshots nest about 30 deep
MAX_INTEGER = 16  # bytes; the largest legitimate one is torch's 10-byte magic number
MAX_NAME = 200  # bytes of a module or class name

T = TypeVar("T")


@dataclass(frozen=True)
class Name:
    """The name of a global that a pickle mentions. It is never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        return shown(f"{self.module}.{self.name}")


class StandIn:
    """Base class of the objects that may receive a state from a pickle (its BUILD instruction)."""

    def set_state(self, state: object) -> None:
        raise UnsafePickleError(f"a state for a {type(self).__name__}, which takes none")


@dataclass(frozen=True)
class Vocabulary:
    """The names that one kind of pickle may mention, and their replacements. Functions check their arguments."""

    calls: Mapping[Name, Callable[[tuple], object]] = field(default_factory=dict)
    classes: Mapping[Name, Callable[[], object]] = field(default_factory=dict)  # created without arguments
    mentions: frozenset[Name] = frozenset()  # may be arguments, but are neither called nor instantiated
    persistent: Callable[[object], object] | None = None  # resolves persistent ids. None = none are allowed
    python2_text: bool = False  # allow Python 2's byte strings, which become text in Latin-1
    kind: str = "official snapshot"  # the files that need these names, for messages

    def __contains__(self, name: Name) -> bool:
        return name in self.calls or name in self.classes or name in self.mentions


class Budget:
    """The number of instructions that one pickle, with all pickles inside it, may still execute."""

    def __init__(self, instructions: int, kind: str = "official snapshot") -> None:
        self.left, self.kind = instructions, kind

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise UnsafePickleError(f"the pickle has far more instructions than any {self.kind}")


class PickleReader:
    """Reads one pickle at the start of `data`. Afterwards, `position` is the end of the pickle."""

    def __init__(self, data: memoryview, vocabulary: Vocabulary, budget: Budget) -> None:
        self.data, self.vocabulary, self.budget = data, vocabulary, budget
        self.position = 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stack below each open bracket
        self.memo: dict[int, object] = {}

    def load(self) -> object:
        if bytes(self.data[:1]) != b"\x80":
            raise SnapshotError("this is no pickle of protocol 2 or later")
        while True:
            self.budget.spend()
            code = self._take(1)[0]
            if code == _STOP:
                break
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None and self.vocabulary.python2_text:
                instruction = _PYTHON2_TEXT.get(code)
            if instruction is None:
                name = f"{code:#04x} {_REFUSED.get(code, '')}".rstrip()
                raise UnsafePickleError(f"pickle instruction {name} at byte {self.position - 1}")
            instruction(self)
        value = self._pop()
        if self.stack or self.outer:
            raise self._damaged("values are left over at the end")
        return value

    # Parts of instructions.

    def _damaged(self, what: str) -> SnapshotError:
        return SnapshotError(f"the pickle is damaged at byte {self.position}: {what}")

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            left = len(self.data) - self.position
            raise SnapshotError(f"the pickle is cut short: {count} bytes wanted at byte {self.position}, {left} left")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def _number(self, layout: str) -> int:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        line, end, _ = bytes(self.data[self.position : self.position + MAX_NAME]).partition(b"\n")
        if not end:
            raise self._damaged("a name has no end")
        self.position += len(line) + 1
        return self._text(line)

    def _text(self, data: bytes | memoryview) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            raise self._damaged("text is not UTF-8") from None

    def _push(self, value: object) -> None:
        self.stack.append(value)

    def _pop(self) -> Any:
        if not self.stack:
            raise self._damaged("a value is missing")
        return self.stack.pop()

    def _pop_tuple(self) -> tuple:
        value = self._pop()
        if type(value) is not tuple:
            raise UnsafePickleError(f"arguments that are no tuple but {_kind(value)}")
        return value

    def _pop_bracket(self) -> list[Any]:
        """Close the innermost open bracket and return its values."""
        if not self.outer:
            raise self._damaged("a bracket was never opened")
        values, self.stack = self.stack, self.outer.pop()
        return values

    def _top(self, kind: type[T]) -> T:
        """Return the container on top of the stack that an instruction adds to. Only a plain `kind` is accepted."""
        if not self.stack:
            raise self._damaged("a value is missing")
        if type(self.stack[-1]) is not kind:
            raise UnsafePickleError(f"items for {_kind(self.stack[-1])} as if it were a {kind.__name__}")
        return self.stack[-1]

    def _remember(self, key: int) -> None:
        if not self.stack:
            raise self._damaged("a value is missing")
        self.memo[key] = self.stack[-1]

    def _recall(self, key: int) -> None:
        if key not in self.memo:
            raise self._damaged(f"value {key} was never stored")
        self._push(self.memo[key])

    # Instructions.

    def protocol(self) -> None:
        version = self._take(1)[0]
        if not 2 <= version <= 5:
            raise SnapshotError(f"pickle protocol {version}; protocols 2 to 5 are read")

    def frame(self) -> None:
        size, left = self._number("<Q"), len(self.data) - self.position
        if size > left:
            raise SnapshotError(f"the pickle is cut short: a frame of {size} bytes, {left} left")

    def mark(self) -> None:
        if len(self.outer) >= MAX_MARKS:
            raise UnsafePickleError(f"values nested more than {MAX_MARKS} deep")
        self.outer.append(self.stack)
        self.stack = []

    def integer(self, size: int) -> None:
        if size > MAX_INTEGER:
            raise UnsafePickleError(f"an integer of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(values)))

    def append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def appends(self) -> None:
        values = self._pop_bracket()
        self._top(list).extend(values)

    def add_items(self) -> None:
        values = self._pop_bracket()
        self._top(set).update(_key(value) for value in values)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._top(dict)[_key(key)] = value

    def set_items(self) -> None:
        values = self._pop_bracket()
        if len(values) % 2:
            raise self._damaged("a key has no value")
        keys = map(_key, values[::2])
        self._top(dict).update(zip(keys, values[1::2], strict=True))

    def name_by_line(self) -> None:
        module = self._line()
        self._mention(module, self._line())

    def name_by_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not (type(module) is str and type(name) is str):
            raise UnsafePickleError(f"a global named by {_kind(module)} and {_kind(name)}, not by text")
        self._mention(module, name)

    def _mention(self, module: str, name: str) -> None:
        mentioned = Name(module, name)
        if mentioned not in self.vocabulary:
            raise UnsafePickleError(f"the pickle asks for {mentioned}, which no {self.vocabulary.kind} needs")
        self._push(mentioned)

    def call(self) -> None:
        arguments, callee = self._pop_tuple(), self._pop()
        stand_in = self.vocabulary.calls.get(callee) if isinstance(callee, Name) else None
        if stand_in is None:
            raise UnsafePickleError(f"a call of {_kind(callee)}")
        self._push(stand_in(arguments))

    def create(self) -> None:
        arguments, callee = self._pop_tuple(), self._pop()
        stand_in = self.vocabulary.classes.get(callee) if isinstance(callee, Name) else None
        if stand_in is None or arguments:
            raise UnsafePickleError(f"an instance of {_kind(callee)} made from {len(arguments)} arguments")
        self._push(stand_in())

    def build(self) -> None:
        state = self._pop()
        if not self.stack or not isinstance(self.stack[-1], StandIn):
            raise UnsafePickleError(f"a state for {_kind(self.stack[-1]) if self.stack else 'nothing'}")
        self.stack[-1].set_state(state)

    def persistent(self) -> None:
        if self.vocabulary.persistent is None:
            raise UnsafePickleError("a persistent id outside of tensor data")
        self._push(self.vocabulary.persistent(self._pop()))


def _kind(value: object) -> str:
    """Describe a value for a message: a name in full, other values by type only, as printing them might never end."""
    return str(value) if isinstance(value, Name) else f"a {type(value).__name__}"


def _key(value: object) -> str | int:
    """Return a key that is text or a small integer, and refuse others.

    Hashing nested tuples would recurse, and large integers can be chosen to collide.
    """
    if isinstance(value, str) or (type(value) is int and abs(value) < 2**32):
        return value
    raise UnsafePickleError(f"a key that is {_kind(value)}, not text or a small integer")


def _constant(value: object) -> Callable[[PickleReader], None]:
    return lambda reader: reader._push(value)


def _numeric(layout: str) -> Callable[[PickleReader], None]:
    return lambda reader: reader._push(reader._number(layout))


def _text(layout: str) -> Callable[[PickleReader], None]:
    return lambda reader: reader._push(reader._text(reader._take(reader._number(layout))))


def _bytes(layout: str) -> Callable[[PickleReader], None]:
    return lambda reader: reader._push(reader._take(reader._number(layout)))


_STOP = ord(".")

# All instructions that Python's pickler, with protocols 2 to 5, writes for plain, repeated and object values.
_INSTRUCTIONS: dict[int, Callable[[PickleReader], None]] = {
    0x80: PickleReader.protocol,
    0x95: PickleReader.frame,
    ord("("): PickleReader.mark,
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("K"): _numeric("<B"),
    ord("M"): _numeric("<H"),
    ord("J"): _numeric("<i"),
    0x8A: lambda reader: reader.integer(reader._number("<B")),
    0x8B: lambda reader: reader.integer(reader._number("<I")),
    ord("G"): _numeric(">d"),
    0x8C: _text("<B"),
    ord("X"): _text("<I"),
    0x8D: _text("<Q"),
    ord("C"): _bytes("<B"),
    ord("B"): _bytes("<I"),
    0x8E: _bytes("<Q"),
    ord(")"): _constant(()),
    ord("]"): lambda reader: reader._push([]),
    ord("}"): lambda reader: reader._push({}),
    0x8F: lambda reader: reader._push(set()),
    ord("t"): lambda reader: reader._push(tuple(reader._pop_bracket())),
    0x85: lambda reader: reader.tuple_of(1),
    0x86: lambda reader: reader.tuple_of(2),
    0x87: lambda reader: reader.tuple_of(3),
    ord("a"): PickleReader.append,
    ord("e"): PickleReader.appends,
    ord("s"): PickleReader.set_item,
    ord("u"): PickleReader.set_items,
    0x90: PickleReader.add_items,
    ord("q"): lambda reader: reader._remember(reader._number("<B")),
    ord("r"): lambda reader: reader._remember(reader._number("<I")),
    0x94: lambda reader: reader._remember(len(reader.memo)),
    ord("h"): lambda reader: reader._recall(reader._number("<B")),
    ord("j"): lambda reader: reader._recall(reader._number("<I")),
    ord("c"): PickleReader.name_by_line,
    0x93: PickleReader.name_by_stack,
    ord("R"): PickleReader.call,
    0x81: PickleReader.create,
    ord("b"): PickleReader.build,
    ord("Q"): PickleReader.persistent,
}

_PYTHON2_TEXT: dict[int, Callable[[PickleReader], None]] = {
    ord("U"): lambda reader: reader._push(str(reader._take(reader._number("<B")), "latin-1")),
    ord("T"): lambda reader: reader._push(str(reader._take(reader._number("<I")), "latin-1")),
}

# The other instructions that do more than make a plain value. They are refused; the names are only for messages.
_REFUSED = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    ord("P"): "PERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x92: "NEWOBJ_EX",
    0x97: "NEXT_BUFFER",
}


def empty_dict(arguments: tuple) -> dict[object, object]:
    """Return an empty dict. Replaces collections.OrderedDict."""
    if arguments:
        raise SnapshotError("an ordered dict made from something")
    return {}
