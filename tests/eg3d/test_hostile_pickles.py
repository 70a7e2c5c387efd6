"""Tests that files other than official snapshots are rejected with one clear message, and never executed.

They must not cause any other exception, a recursion, or an excessive use of memory or time.
"""

import contextlib
import gzip
import pickle
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import official_pickles
import pytest
import torch
from click.testing import CliRunner
from hostile_pickles import (
    BUILD,
    EXECUTED,
    NEWOBJ,
    REFUSED,
    SOFTPLUS,
    entry,
    name,
    number,
    persistent,
    tensor,
    text,
    zip_checkpoint,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from dreamportrait.cli import main
from dreamportrait.core.errors import SnapshotError
from dreamportrait.eg3d.convert import convert_eg3d
from dreamportrait.eg3d.snapshot import find_network, plane_axes, read_snapshot
from dreamportrait.weights.pickle_reader import _INSTRUCTIONS


def assert_refused(data: bytes, message: str, folder: Path) -> None:
    """Check that the reader and the command reject the file, and that the command leaves nothing behind."""
    path = folder / "hostile.pkl"
    path.write_bytes(data)
    before = sorted(folder.iterdir())
    with pytest.raises(SnapshotError, match=message):
        convert_eg3d(path, folder / "out")
    done = CliRunner().invoke(main, ["convert", "eg3d", str(path), str(folder / "out")])
    assert (done.exit_code, len(done.output.splitlines())) == (1, 1)
    assert done.output.startswith(f"Error: {path}")
    assert done.output.isprintable() or done.output.rstrip("\n").isprintable()
    assert sorted(folder.iterdir()) == before


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    """Return the path of a file that hostile pickles try to create. A module of that name creates it when imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    canary = tmp_path / "a_module_with_a_canary"
    (folder / f"{canary.name}.py").write_text(f"open({str(canary)!r}, 'w').close()\nvalue = 1\n")
    monkeypatch.syspath_prepend(folder)
    yield canary
    sys.modules.pop(canary.name, None)


@pytest.mark.parametrize("case", EXECUTED)
def test_nothing_is_executed(canary, tmp_path, case):
    make, message = EXECUTED[case]
    assert_refused(make(canary), message, tmp_path)
    assert not canary.exists() and canary.name not in sys.modules
    with contextlib.suppress(Exception):
        pickle.loads(make(canary))
    assert canary.exists(), "the file is harmless even to Python's own unpickler, so it tests nothing"


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.lengthy
def test_refused(tmp_path, case):
    data, message = REFUSED[case]
    assert_refused(data, message, tmp_path)


def test_the_hand_assembled_parts_are_right(tmp_path):
    """The hand-assembled parts are valid; otherwise files made of them would be rejected for the wrong reason."""
    path = tmp_path / "s.pkl"
    path.write_bytes(entry(tensor(1, (3,), (1,), more=b"}")))
    view = read_snapshot(path).entries["G_ema"]
    assert torch.equal(view.tensor(), torch.zeros(3))
    path.write_bytes(entry(persistent(b"}" + text("a") + number(2**60) + b"s")))
    assert read_snapshot(path).entries["G_ema"].state == {"a": 2**60}
    path.write_bytes(entry(SOFTPLUS + b"}" + BUILD))
    assert read_snapshot(path).entries["G_ema"].state == {}


def test_lengths_are_checked_before_anything_is_allocated(tmp_path):
    for case in (
        "bytes of 2^60",
        "bytes of 2^32",
        "text of 2^60",
        "storage of 2^60 elements",
        "tensor expanded to 2^60",
    ):
        path = tmp_path / "s.pkl"
        path.write_bytes(REFUSED[case][0])
        tracemalloc.start()
        with pytest.raises(SnapshotError):
            read_snapshot(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20, case


# Instructions that add one level of nesting. Each value takes the previous one from the memo, so that values nest
# deeply without an open bracket.
LEVELS = {
    "lists": b"]h\x00aq\x00",
    "tuples": b"h\x00\x85q\x00",
    "dicts": b"}" + text("x") + b"h\x00sq\x00",
    "modules": name("torch.nn.modules.container", "Sequential")
    + b")"
    + NEWOBJ
    + b"}"
    + text("x")
    + b"h\x00s"
    + BUILD
    + b"q\x00",
}


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.lengthy
def test_deep_nesting(tmp_path, kind):
    """Reading, walking, showing and freeing fifty thousand levels does not exhaust the stack."""
    levels = text("junk") + b"(Nq\x00" + LEVELS[kind] * 50_000 + b"ts"

    def nested_in(value: bytes) -> bytes:
        return b"\x80\x04}" + levels + text("G_ema") + value + b"s."

    is_module = kind == "modules"
    assert_refused(nested_in(b"h\x00"), "is a 'Sequential'" if is_module else "no network 'G_ema'", tmp_path)
    state = b"}(" + text("_init_args") + b")" + text("_init_kwargs") + b"}" + text("z_dim") + b"h\x00su"
    message = "z_dim' is a Module" if is_module else "z_dim.* has more parts, or deeper nested ones"
    assert_refused(nested_in(persistent(state)), message, tmp_path)


def doubled(levels: int) -> list:
    """Return a list that is small in memory but would have 2^levels items if written out."""
    value: list = []
    for _ in range(levels):
        value = [value, value]
    return value


def small_network(**children: nn.Module) -> official_pickles.Persistent:
    """Return the smallest network that can be found in a snapshot."""
    network = official_pickles.Persistent(
        "TriPlaneGenerator", {"z_dim": 32, "mapping_kwargs": official_pickles.EasyDict(a=1.5)}
    )
    network.rendering_kwargs = {"ray_start": "auto"}
    network.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    network.register_buffer("filter", torch.ones(4).double()[::2])
    network.renderer = official_pickles._plain("ImportanceRenderer", plane_axes=official_pickles.official_plane_axes())
    for key, child in children.items():
        network.add_module(key, child)
    return network


def shared_modules(levels: int) -> nn.Module:
    module: nn.Module = nn.Sequential()
    for _ in range(levels):
        module = nn.Sequential(module, module)
    return module


def test_small_files_that_stand_for_endless_networks(tmp_path):
    network = small_network()
    network._init_kwargs["z_dim"] = doubled(60)
    data = official_pickles.dumps(official_pickles.snapshot(network))
    assert_refused(data, r"'G_ema._init_kwargs.z_dim' has more parts", tmp_path)
    circle: list = []
    circle.append(circle)
    network._init_kwargs["z_dim"] = circle
    assert_refused(official_pickles.dumps(official_pickles.snapshot(network)), "z_dim' has more parts", tmp_path)
    network = small_network(twice=shared_modules(15))
    assert_refused(official_pickles.dumps(official_pickles.snapshot(network)), "'twice.*' has more parts", tmp_path)


def test_tensors_that_share_storage(tmp_path):
    """Tensors that share storage are rejected: a file of one gigabyte must not expand to five hundred."""
    generator = official_pickles.golden("generator_tiny")
    shared = torch.zeros(max(parameter.numel() for parameter in generator.parameters()))
    once = shared._typed_storage()
    for parameter in generator.parameters():
        parameter.data = shared[: parameter.numel()].view(parameter.shape)

    class Sharing(pickle.Pickler):
        def reducer_override(self, value):
            if not (isinstance(value, torch.Tensor) and value.data_ptr() == shared.data_ptr()):
                return NotImplemented
            return torch._utils._rebuild_tensor_v2, (once, 0, tuple(value.shape), value.stride(), False, OrderedDict())

    module = official_pickles.official(generator, official_pickles.arguments("generator_tiny"))
    data = official_pickles.dumps(official_pickles.snapshot(module), pickler=Sharing)
    assert_refused(data, "tensors that share storage", tmp_path)


# Files of other formats.

OTHER_FILES = {
    "empty": (b"", "the file is empty, the download failed"),
    "web page": (
        b"\n <!DOCTYPE html>\n<html><title>Too many\nusers</title>",
        r"web page \('Too many\\nusers'\), the download failed",
    ),
    "web page without title": (
        b"\xef\xbb\xbf<HTML><body>",
        "this is a web page, the download failed: fetch the file again",
    ),
    "text": (b"Not found", "this is no pickle"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
    "gzip": (gzip.compress(bytes(10**7)), "gzip-compressed"),
    "zip": (zip_checkpoint(Path("canary")), "this is a zip archive"),
    "old pickle": (pickle.dumps({"G_ema": 1}, 0), "this is no pickle"),
    "numpy array": (b"\x93NUMPY\x01\x00", "this is no pickle"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_files(tmp_path, case):
    data, message = OTHER_FILES[case]
    assert_refused(data, message, tmp_path)


def test_no_regular_files(tmp_path):
    with pytest.raises(SnapshotError, match="nothing.pkl: there is no such file"):
        convert_eg3d(tmp_path / "nothing.pkl", tmp_path / "out")
    with pytest.raises(SnapshotError, match="this is not a regular file"):
        convert_eg3d(tmp_path, tmp_path / "out")
    with (tmp_path / "huge.pkl").open("wb") as file:
        file.truncate(2**31 + 1)  # a sparse file takes no disk space
    with pytest.raises(SnapshotError, match="2147483649 bytes; official snapshots have about"):
        convert_eg3d(tmp_path / "huge.pkl", tmp_path / "out")


# Valid snapshots that were damaged.

SMALL = official_pickles.dumps(official_pickles.snapshot(small_network(decoder=nn.Sequential(nn.Softplus()))))


def examine(path: Path) -> None:
    """Do everything that is done to a file before the network that it describes is built."""
    snapshot = read_snapshot(path)
    network = find_network(snapshot, "G_ema", "TriPlaneGenerator", ("rendering_kwargs",))
    for view in network.tensors.values():
        view.tensor()
    plane_axes(snapshot, "G_ema")


def test_the_undamaged_one_is_read(tmp_path):
    (tmp_path / "s.pkl").write_bytes(SMALL)
    examine(tmp_path / "s.pkl")


def test_truncated(tmp_path):
    path = tmp_path / "s.pkl"
    for length in range(0, len(SMALL), 7):
        path.write_bytes(SMALL[:length])
        with pytest.raises(SnapshotError, match="cut short|the file is empty|no pickle|a name has no end"):
            examine(path)


# Each example takes a few milliseconds; only the run time limits their number.
MUTATIONS = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_read_or_refused(data: bytes, folder: Path) -> None:
    (folder / "s.pkl").write_bytes(data)
    with contextlib.suppress(SnapshotError):
        examine(folder / "s.pkl")
    assert [path.name for path in folder.iterdir()] == ["s.pkl"]


@MUTATIONS
@given(changes=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@pytest.mark.lengthy
def test_changed_bytes(tmp_path, changes):
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    assert_read_or_refused(bytes(data), tmp_path)


# Every instruction that the reader knows, and values for the instructions to work on.
PARTS = [bytes([code]) for code in _INSTRUCTIONS]
PARTS += [b"K\x05", b"(", b"h\x00", b"q\x00", text("x"), SOFTPLUS, tensor(), persistent(b"}")]


@MUTATIONS
@given(st.lists(st.sampled_from(PARTS), max_size=30))
@pytest.mark.lengthy
def test_random_programs(tmp_path, parts):
    assert_read_or_refused(b"\x80\x04" + b"".join(parts) + b".", tmp_path)
