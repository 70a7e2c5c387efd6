"""Tests of reading GNM Head and ICT-FaceKit, from files with their layouts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from head_files import gnm, ict_folder

from dreamportrait.cli import main
from dreamportrait.core.errors import SnapshotError, WeightsError
from dreamportrait.systems.heads.arkit import NAMES
from dreamportrait.systems.heads.folder import load_head_model, read_head_model
from dreamportrait.systems.heads.readers import placing
from dreamportrait.systems.heads.readers.gnm import read_gnm
from dreamportrait.systems.heads.readers.ict import rigid_turn
from dreamportrait.systems.heads.skinning import joints, posed

ARRAYS = gnm()


def saved(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "gnm_head.npz", **{key: value for key, value in (ARRAYS | changes).items() if value is not None})
    return folder / "gnm_head.npz"


def test_gnm(tmp_path: Path) -> None:
    """Vertices of a posed head are those of GNM's own formula, written out here."""
    model, notes = read_gnm(saved(tmp_path))
    rng = np.random.default_rng(3)
    beta, psi = rng.normal(size=3), rng.normal(size=2)
    rest = ARRAYS["template_vertex_positions"] + np.einsum("m,mvc->vc", beta, ARRAYS["vertex_identity_basis"])
    rest = rest + np.einsum("e,evc->vc", psi, ARRAYS["expression_basis"])
    places = ARRAYS["template_joint_positions"] + np.einsum("m,mkc->kc", beta, ARRAYS["joint_identity_basis"])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # the head, by 90 degrees around z
    feature = np.zeros(36)
    feature[9:18] = (turn - np.eye(3)).ravel()
    rest = rest + (feature @ ARRAYS["pose_correctives_regressor"]).reshape(-1, 3)
    turned = (rest - places[1]) @ turn.T + places[1]  # the head and both eyes follow
    share = ARRAYS["skinning_weights"][1:].sum(0)[:, None]
    expected = share * turned + (1 - share) * rest
    theta = torch.zeros(1, 4, 3)
    theta[0, 1, 2] = np.pi / 2
    given = (torch.tensor(x, dtype=torch.float32)[None] for x in (beta, psi))
    found = posed(model, *given, theta)[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)  # float32 against float64
    assert notes["corrections_left_out"] == 0
    assert model.joint_names == ("neck", "head", "left_eye", "right_eye")
    assert model.parents == (-1, 0, 1, 1)


def test_gnm_parts_and_tiles(tmp_path: Path) -> None:
    model = read_gnm(saved(tmp_path)).model
    assert model.part_names == ("skin", "teeth")
    assert model.parts.tolist() == [1] * 4 + [0] * 8  # faces of vertices 0 to 5
    uv = model.uv[model.uv_faces]
    assert uv[:6, :, 0].max() <= 0.5 <= uv[6:, :, 0].min()  # two tiles side by side
    assert float(uv.min()) >= 0 and float(uv.max()) <= 1
    white = model.mean_texture[:, (uv[0, :, 1].mean() * 256).int(), (uv[0, :, 0].mean() * 256).int()]
    torch.testing.assert_close(white, torch.tensor(placing.WHITE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"triangles": None, "joint_names": None}, "lacks triangles, joint_names"),
        ({"skinning_weights": np.ones((4, 11))}, r"skinning_weights has shape \[4, 11\], must be \[4, 12\]"),
        ({"triangles": np.array([[0, 1, 99]])}, "triangles name vertices from 0 to 11|triangle_uvs has shape"),
        ({"joint_names": np.array([{}], dtype=object)}, "allow_pickle"),
        ({"skinning_weights": np.ones((4, 12))}, "sum to 1 within 0.001"),
        ({"triangle_uvs": np.full((12, 3, 2), [0.5, 3.7])}, None),
        ({"pose_correctives_regressor": np.ones((9, 36))}, r"must be \[36, 36\]"),
    ],
)
def test_wrong_gnm_files_are_refused(tmp_path: Path, changes: dict[str, Any], message: str | None) -> None:
    path = saved(tmp_path, **changes)
    if message is None:
        read_gnm(path)  # one tile alone, wherever it is, is a whole texture
        return
    with pytest.raises(WeightsError, match=message):
        read_gnm(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(SnapshotError, match="is no .npz file of plain arrays"):
        read_gnm(tmp_path / "x.npz")
    with pytest.raises(SnapshotError, match="is not there"):
        read_gnm(tmp_path / "y.npz")


def test_gnm_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str, local_files_only: bool) -> str:
        asked.append((repository, file, local_files_only))
        if local_files_only:
            raise OSError("not in the cache")
        return str(saved(tmp_path))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_head_model("gnm").joint_names[0] == "neck"
    assert asked == [("google/gnm-v3", "v3_0/gnm_head.npz", cached) for cached in (True, False)]
    with pytest.raises(WeightsError, match=r"not in the cache; run once online, or download gnm_head\.npz"):
        load_head_model("gnm", offline=True)


def test_a_rigid_turn_is_found_with_its_axis() -> None:
    points = np.random.default_rng(4).normal(size=(20, 3))
    turn, hinge = np.array([0.3, 0.0, 0.1]), np.array([0.0, 2.0, -1.0])
    found, place = rigid_turn(points, np.cross(turn, points - hinge))
    np.testing.assert_allclose(found, turn, atol=1e-12)
    np.testing.assert_allclose(np.cross(turn, place - hinge), 0, atol=1e-12)  # on the same axis


@pytest.mark.lengthy
def test_ict(tmp_path: Path) -> None:
    turn, hinge = np.array([0.2, 0.0, 0.0]), np.array([0.0, 1.0, -2.0])
    vertices = ict_folder(tmp_path / "ICT" / "FaceXModel", turn, hinge)
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["convert", "ict-facekit", str(tmp_path / "ICT"), str(out)])
    assert done.exit_code == 0, done.output
    assert "missing expressions: tongueOut" in done.output
    model = read_head_model(out)
    assert model.expr_names == tuple(name for name in NAMES if name != "tongueOut")
    torch.testing.assert_close(model.v_template, torch.tensor(vertices, dtype=torch.float32))
    assert model.shapedirs[..., 1].unique().tolist() == pytest.approx([0.2], abs=1e-5)
    puff = model.exprdirs[..., model.expression("cheekPuff")]
    assert puff.unique().tolist() == pytest.approx([0.5], abs=1e-5)  # left and right added up
    # A small turn of the jaw moves the lower teeth as jawOpen does.
    theta = torch.zeros(1, 5, 3)
    theta[0, 2] = 0.01 * torch.tensor(turn, dtype=torch.float32)
    moved = posed(model, torch.zeros(1, 2), None, theta)[0] - model.v_template
    opened = model.exprdirs[..., model.expression("jawOpen")]
    # Vertices near the axis, which hardly move, follow the jaw less: up to sqrt(1e-3) of the largest displacement.
    torch.testing.assert_close(moved[19247:21451], 0.01 * opened[19247:21451], atol=1e-3, rtol=0)
    assert moved[19247:21451].abs().max() > 0.02
    assert model.weights[21451:23021, 3].eq(1).all()
    assert model.weights[(vertices[:, 1] > 1.5).nonzero()[0][:100], 2].max() < 0.05  # the upper half stays
    assert joints(model, torch.zeros(1, 2))[0, 3].numpy() == pytest.approx(vertices[21451:23021].mean(0), abs=1e-4)
    assert model.faces.shape == (2 * (26719 - 4), 3)
    assert model.landmark_faces.shape == (68,)


def test_folders_without_ict_are_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["convert", "ict-facekit", str(tmp_path), str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "is no checkout of ICT-FaceKit" in done.output
    assert not (tmp_path / "out").exists()


def test_heads_are_placed_where_the_miniature_head_is() -> None:
    from dreamportrait.systems.heads.landmarks import landmarks
    from dreamportrait.systems.heads.skinning import to_world

    model = read_head_model(Path(placing.__file__).parents[3] / "mini" / "weights" / "head")
    vertices = model.v_template.double().numpy()
    marks = landmarks(model, model.v_template[None])[0].double().numpy()
    for given in (marks, None):
        placed = placing.place(vertices * 100 + 5, None if given is None else marks * 100 + 5)
        world = (vertices * 100 + 5) * placed.scale + placed.offset
        there = to_world(model, model.v_template[None])[0].numpy()
        assert np.abs(world - there)[:, 1].max() < 2e-3  # the constants have three digits
        assert given is None or np.abs(world - there).max() < 2e-3
