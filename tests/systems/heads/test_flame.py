"""Tests of reading FLAME: files of Python 2 and 3 round-trip, hostile ones are refused without doing anything."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from head_files import (
    EXPRESSIONS,
    SHAPES,
    chumpy,
    flame,
    landmark_file,
    new_flame,
    old_array,
    old_flame,
    old_text,
    template_obj,
)
from hostile_pickles import EXECUTED, call, entry, name, python, shell

from dreamportrait.cli import main
from dreamportrait.core.errors import SnapshotError, UnsafePickleError, WeightsError
from dreamportrait.systems.heads.folder import notes_of, read_head_model
from dreamportrait.systems.heads.readers.flame import read_flame
from dreamportrait.systems.heads.readers.placing import nod
from dreamportrait.systems.heads.skinning import posed
from dreamportrait.weights.pickled_arrays import read_object_array

ARRAYS = flame()


def written(folder: Path, content: bytes, file: str = "generic_model.pkl") -> Path:
    (folder / file).write_bytes(content)
    return folder / file


@pytest.mark.parametrize("content", [old_flame(ARRAYS), new_flame(ARRAYS, 2), new_flame(ARRAYS, 4)])
def test_round_trip(tmp_path: Path, content: bytes) -> None:
    model, notes = read_flame(written(tmp_path, content), shapes=SHAPES)
    for field, key in (("v_template", "v_template"), ("posedirs", "posedirs"), ("weights", "weights")):
        np.testing.assert_array_equal(getattr(model, field).numpy(), ARRAYS[key].astype(np.float32))
    np.testing.assert_array_equal(model.joint_regressor.numpy(), ARRAYS["J_regressor"].astype(np.float32))
    np.testing.assert_array_equal(model.shapedirs.numpy(), ARRAYS["shapedirs"][..., :SHAPES].astype(np.float32))
    np.testing.assert_array_equal(model.exprdirs.numpy(), ARRAYS["shapedirs"][..., SHAPES:].astype(np.float32))
    np.testing.assert_array_equal(model.faces.numpy(), ARRAYS["f"])
    assert model.parents == (-1, 0, 1, 1, 1)
    assert model.joint_names == ("root", "neck", "jaw", "leftEye", "rightEye")
    assert model.num_expressions == EXPRESSIONS
    assert "non-commercial" in model.licence
    moved = np.einsum("kv,vce->kce", ARRAYS["J_regressor"], ARRAYS["shapedirs"][..., SHAPES:])
    assert notes["joints_moved_by_one_expression"] == pytest.approx(np.linalg.norm(moved, axis=1).max() / 3, abs=1e-4)


@pytest.mark.filterwarnings("ignore:Please import `csc_matrix`:DeprecationWarning")
def test_the_file_of_python_2_is_one_that_python_reads() -> None:
    with chumpy():
        found = pickle.loads(old_flame(ARRAYS), encoding="latin1")
    np.testing.assert_array_equal(found["v_template"].x, ARRAYS["v_template"])
    np.testing.assert_array_equal(found["J_regressor"].toarray(), ARRAYS["J_regressor"])
    np.testing.assert_array_equal(found["posedirs"], ARRAYS["posedirs"])


def test_a_nod_of_the_rest_pose_turns_everything_with_it(tmp_path: Path) -> None:
    """The nodding head, posed by turns around nodding axes, is the head as it was, posed and then nodded."""
    path = written(tmp_path, old_flame(ARRAYS))
    model, nodding = (read_flame(path, shapes=SHAPES, rest_pitch=degrees).model for degrees in (0, 20))
    q = nod(20).float()
    generator = torch.Generator().manual_seed(0)
    beta, psi = torch.randn(1, SHAPES, generator=generator), torch.randn(1, EXPRESSIONS, generator=generator)
    theta = torch.randn(1, 5, 3, generator=generator)
    expected = posed(model, beta, psi, theta) @ q.T
    torch.testing.assert_close(posed(nodding, beta, psi, theta @ q.T), expected, atol=1e-4, rtol=1e-4)
    assert nodding.scale != model.scale  # it is placed as it stands now


def test_chin_and_brows_come_to_stand_upright(tmp_path: Path) -> None:
    marks, shares = np.zeros(68, int), np.tile([1.0, 0, 0], (68, 1))
    marks[17:27] = (
        11  # brows at the first corner of the last face, (0, 0, 1); the chin, (-1, -2, 0.7), is in front of it
    )
    marks[8] = 0
    (tmp_path / "marks.npy").write_bytes(landmark_file(marks, shares))
    path = written(tmp_path, old_flame(ARRAYS))
    found = read_flame(path, marks=tmp_path / "marks.npy", rest_pitch="auto")
    line = (found.model.v_template[found.model.faces[11, 0]] - found.model.v_template[0]).numpy()
    assert line[2] == pytest.approx(0, abs=1e-6)
    assert line[1] > 0
    before = ARRAYS["v_template"][ARRAYS["f"][11, 0]] - ARRAYS["v_template"][0]
    assert found.notes["rest_pitch"] == pytest.approx(np.degrees(np.arctan2(-before[2], before[1])), abs=1e-3)
    with pytest.raises(SnapshotError, match="found by the 68 landmarks"):
        read_flame(path, rest_pitch="auto")


@pytest.mark.parametrize("pitch", ["left", "90", "nan"])
def test_a_wrong_pitch_is_refused(tmp_path: Path, pitch: str) -> None:
    path = written(tmp_path, old_flame(ARRAYS))
    done = CliRunner().invoke(main, ["convert", "flame", str(path), str(tmp_path / "out"), "--rest-pitch", pitch])
    assert done.exit_code == 1
    assert "must be auto, or degrees from -45 to 45" in done.output
    assert not (tmp_path / "out").exists()


def test_texture_and_landmarks(tmp_path: Path) -> None:
    marks = np.arange(68) % 12
    shares = np.tile([0.5, 0.25, 0.25], (68, 1))
    (tmp_path / "marks.npy").write_bytes(landmark_file(marks, shares))
    (tmp_path / "head.obj").write_text(template_obj(ARRAYS["v_template"], ARRAYS["f"]))
    path = written(tmp_path, old_flame(ARRAYS))
    model = read_flame(path, tmp_path / "head.obj", tmp_path / "marks.npy").model
    # The OBJ has v = (y + 2) / 3 upwards at every vertex; our v grows downwards.
    expected = (ARRAYS["v_template"][ARRAYS["f"]][..., :2] + [1, 2]) / [2, 3]
    found = model.uv[model.uv_faces].numpy()
    np.testing.assert_allclose(found, np.stack([expected[..., 0], 1 - expected[..., 1]], -1), atol=1e-6)
    np.testing.assert_array_equal(model.landmark_faces.numpy(), marks)
    np.testing.assert_array_equal(model.landmark_shares.numpy(), shares)
    assert model.mean_texture.shape == (3, 256, 256)


@pytest.mark.parametrize("blue_first", [True, False])
def test_a_texture_file_is_red_whichever_colour_comes_first(tmp_path: Path, blue_first: bool) -> None:
    vertices, faces = ARRAYS["v_template"], ARRAYS["f"]
    colour = np.array([204.0, 153, 102])
    mean = np.tile(colour[::-1] if blue_first else colour, (8, 8, 1))
    np.savez(tmp_path / "t.npz", vt=(vertices[:, :2] + [1, 2]) / [2, 3], ft=faces, mean=mean)
    model = read_flame(written(tmp_path, old_flame(ARRAYS)), tmp_path / "t.npz").model
    assert torch.allclose(model.mean_texture, torch.tensor([0.8, 0.6, 0.4])[:, None, None])


def test_the_command(tmp_path: Path) -> None:
    path, out = written(tmp_path, old_flame(ARRAYS), "flame2023_Open.pkl"), tmp_path / "flame"
    done = CliRunner().invoke(main, ["convert", "flame", str(path), str(out), "--shapes", "3"])
    assert done.exit_code == 0, done.output
    assert "3 shapes, 2 expressions, 5 joints" in done.output
    assert "CC BY 4.0 with prohibited uses" in read_head_model(out).licence
    assert notes_of(out)["source"] == "flame2023_Open.pkl"
    done = CliRunner().invoke(main, ["convert", "flame", str(path), str(out)])
    assert done.exit_code == 1
    assert "exists and is not empty" in done.output


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"f": None, "weights": None}, "it lacks f, weights"),
    "shape": ({"weights": np.ones((11, 5)) / 5}, r"weights has shape \[11, 5\], must be \[12, 5\]"),
    "nan": ({"posedirs": np.full((12, 3, 36), np.nan)}, "posedirs holds something else than finite numbers"),
    "face": ({"f": np.array([[0, 1, 12]], np.uint32)}, "f names vertices from 0 to 11"),
    "weights": ({"weights": np.full((12, 5), 0.3)}, "sum to 1 within 0.001"),
    "tree": ({"kintree_table": np.array([[2**32 - 1, 0, 2, 1, 1], [0, 1, 2, 3, 4]])}, "are no tree"),
    "numbering": ({"kintree_table": np.array([[-1, 0, 1, 1, 1], [0, 2, 1, 3, 4]])}, "must number the joints"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_fields_are_named(tmp_path: Path, case: str) -> None:
    changes, message = WRONG[case]
    arrays = {key: value for key, value in (ARRAYS | changes).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        read_flame(written(tmp_path, old_flame(arrays)))


@pytest.mark.parametrize("kind", [kind for kind in EXECUTED if "storage" not in kind])
def test_pickles_that_act_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    monkeypatch.syspath_prepend(tmp_path)
    path = written(tmp_path, EXECUTED[kind][0](canary))
    with pytest.raises(UnsafePickleError):
        read_flame(path)
    assert not canary.exists()


def harmful(canary: Path) -> dict[str, bytes]:
    """Return values that act when Python unpickles them, in places where FLAME has arrays."""
    system = call(name("os", "system"), shell(canary))
    reconstruct = name("numpy.core.multiarray", "_reconstruct")
    made = name("copy_reg", "_reconstructor")
    return {
        "a call": system,
        "in a chumpy array": name("chumpy.ch", "Ch") + b")\x81}" + old_text("x") + system + b"sb",
        "an array of another class": call(reconstruct, name("os", "system"), b"(K\x00t", old_text("b")),
        "an object of another class": call(made, name("subprocess", "Popen"), name("__builtin__", "object"), b"N"),
        "chumpy called": call(name("chumpy.ch", "Ch"), python(canary)),
        "another encoding": call(name("_codecs", "encode"), old_text("x"), old_text("rot13")),
        "_codecs.lookup": call(name("_codecs", "lookup"), old_text("rot13")),
        "numpy's own loader": call(name("numpy", "load"), old_text("x.npy")),
        "a name of numpy": call(name("numpy.testing._private.utils", "runstring"), python(canary), b"}"),
        "objects as data": call(name("numpy", "dtype"), old_text("V8"), b"K\x00", b"K\x01"),
    }


@pytest.mark.parametrize("kind", harmful(Path("canary")))
def test_values_that_act_are_refused(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    path = written(tmp_path, old_flame(ARRAYS, v_template=harmful(canary)[kind]))
    with pytest.raises(SnapshotError):
        read_flame(path)
    assert not canary.exists()


def lying(shape: tuple[int, ...]) -> bytes:
    """Return an array whose shape needs more data than there is."""
    small = old_array(np.zeros((2, 3)))
    return small.replace(struct_of((2, 3)), struct_of(shape), 1)


def struct_of(shape: tuple[int, ...]) -> bytes:
    return b"".join(b"\x8a\x08" + n.to_bytes(8, "little") for n in shape)


@pytest.mark.parametrize("shape", [(2**40, 2**20), (2, 4), (2**62, 3)])
def test_arrays_larger_than_their_data_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(SnapshotError, match="of data; it has others"):
        read_flame(written(tmp_path, old_flame(ARRAYS, v_template=lying(shape))))


def test_the_same_text_again_and_again_costs_nothing(tmp_path: Path) -> None:
    """A small file asks for 10,000 copies of a megabyte. They are never made."""
    long = b"X" + (2**20).to_bytes(4, "little") + b"a" * 2**20 + b"q\x00"
    encode = name("_codecs", "encode") + b"q\x02"
    again = b"h\x02(h\x00" + old_text("latin1") + b"tR0"
    content = b"\x80\x02" + long + b"0" + encode + b"0" + again * 10_000 + b"}."
    with pytest.raises(SnapshotError):
        read_flame(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>", "looks like a web page"),
        (b"PK\x03\x04", "it is a zip archive"),
        (old_flame(ARRAYS)[:-500], "cut short"),
        (old_flame(ARRAYS) + b"x", "1 bytes follow"),
        (b"\x80\x02]" + b".", "holds a list"),
        (b"(dp0\n.", "no pickle of protocol 2 or later"),
        (entry(name("torch.nn.modules.activation", "Softplus")), "which no head model needs"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        read_flame(written(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b"'|O'", b"'<f8"), "must hold a single object"),
        (lambda data: data.replace(b"'shape': ()", b"'shape':[]"), "must hold a single object"),
        (lambda data: data[:6] + b"\x09" + data[7:], "is no .npy file"),
        (lambda data: data[:200], "cut short"),
        (lambda data: data[:128] + EXECUTED["os.system"][0](Path("canary")), "asks for 'os.system'"),
    ],
)
def test_other_landmark_files_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    data = landmark_file(np.arange(68), np.ones((68, 3)) / 3)
    with pytest.raises(SnapshotError, match=message):
        read_object_array(written(tmp_path, change(data), "marks.npy"))


def test_an_obj_with_other_faces_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head.obj").write_text(template_obj(ARRAYS["v_template"], ARRAYS["f"][1:]))
    with pytest.raises(SnapshotError, match=r"lacks 1 faces of the model, the first is \(0, 1, 3\)"):
        read_flame(written(tmp_path, old_flame(ARRAYS)), tmp_path / "head.obj")
