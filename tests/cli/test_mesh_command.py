"""Tests of `dreamportrait mesh`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tiny_pipeline import write_portrait

from dreamportrait.cli.mesh import mesh
from dreamportrait.export.mesh import extract
from dreamportrait.export.provenance import verify
from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline


def run(*words: object) -> Result:
    return CliRunner().invoke(mesh, ["--device", "cpu", "--offline", *map(str, words)])


@pytest.mark.lengthy
def test_writes_the_mesh_of_the_pipelines_head(tmp_path: Path) -> None:
    out = tmp_path / "new" / "head.glb"
    done = run("a man", "--seed", 3, "--truncation", 0.7, "--resolution", 32, "--out", out)
    assert done.exit_code == 0, done.output
    head = DreamPortraitPipeline.from_pretrained("mini", offline=True)("a man", 3, truncation=0.7).head
    expected = extract(head, 32)
    assert done.output == f"wrote {out}: {len(expected.positions)} vertices, {len(expected.faces)} faces, seed 3\n"
    claim = verify(out)
    assert claim is not None and claim.model == "mini"
    expected.save(tmp_path / "same.glb", extras=claim.extras())
    assert (tmp_path / "same.glb").read_bytes() == out.read_bytes()


@pytest.mark.lengthy
def test_a_name_of_its_own_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("A man!", "--resolution", 24, "--colors", "vertices", "--no-provenance", "--json")
    done = run(*words)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["out"] == "a-man-0.glb" and facts["colors"] == "vertices" and facts["provenance"] is None
    assert facts["faces"] > 0 and verify(tmp_path / "a-man-0.glb") is None
    refused = run(*words)
    assert refused.exit_code == 1 and "a-man-0.glb exists" in refused.output
    assert run(*words, "--overwrite").exit_code == 0


@pytest.mark.lengthy
def test_formats_without_metadata_get_a_file_beside_them(tmp_path: Path) -> None:
    out = tmp_path / "head.ply"
    done = run("a man", "--resolution", 24, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["colors"] == "vertices"  # a PLY has no texture
    assert verify(out) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.ply", "head.ply.provenance.json"]


@pytest.mark.lengthy
def test_a_model_without_heads(tmp_path: Path) -> None:
    model, out = write_portrait(tmp_path / "portrait"), tmp_path / "head.glb"
    done = run("a man", "--model", model, "--out", out)
    assert done.exit_code == 1 and "this head is empty" in done.output and not out.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "Missing argument 'PROMPT'"),
        (("a", "bald", "man"), 2, 'got 3 texts: put the prompt in quotes, "a bald man"'),
        (("a man", "--out", "OUT/head.stl"), 1, "head.stl: must end in one of .glb, .ply, .obj"),
        (("a man", "--out", "OUT/head.glb", "--resolution", 4), 2, "'--resolution': 4 is not in the range"),
        (("a man", "--out", "OUT/head.glb", "--colors", "none"), 2, "'none' is not one of"),
        (("a man", "--out", "OUT/head.glb", "--truncation", 2), 2, "'--truncation': 2.0 is not in the range"),
        (("a man", "--out", "OUT/head.glb", "--model", "maxi"), 1, "no text-to-3D model 'maxi'"),
    ],
)
def test_wrong_commands(tmp_path: Path, words: tuple, code: int, message: str) -> None:
    done = run(*(str(word).replace("OUT", str(tmp_path)) for word in words))
    assert done.exit_code == code and message in done.output and "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []
