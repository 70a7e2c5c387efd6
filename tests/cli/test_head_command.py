"""Tests of `dreamportrait head`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from dreamportrait.cli import main
from dreamportrait.systems.heads import fit, optimise
from dreamportrait.systems.heads.optimise import Settings
from dreamportrait.systems.heads.saved import load_head
from dreamportrait.weights.registry import shipped_folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["head", *words])
    return done.exit_code, done.output


def test_a_head_from_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of each stage with the shipped models: the whole way from a sentence to a file."""
    monkeypatch.setattr(optimise, "SHAPE", Settings(steps=1, views=2))
    monkeypatch.setattr(optimise, "TEXTURE", Settings(steps=1, views=2, mode="sds"))
    out, evolution, views = (tmp_path / name for name in ("man.glb", "evolution.png", "views.png"))
    code, said = run(
        *("optimise", "a man with red hair", "--out", str(out), "--evolution", str(evolution)),
        *("--views", str(views), "--json"),
    )
    assert code == 0, said
    facts = json.loads(said.splitlines()[-1])
    assert facts["bytes"] == out.stat().st_size > 100_000
    assert facts["prompt"] == "a man with red hair"
    assert any(facts["weights"])
    assert size_of(evolution) == (512, 256)  # one picture of each stage
    assert size_of(views) == (768, 256)
    code, said = run(
        "optimise", "a man with a monocle like Churchill", "--out", str(out), "--no-texture", "--overwrite"
    )
    assert code == 0, said
    assert "does not know 'monocle', 'like', 'Churchill': they hardly change the head" in said
    code, said = run("optimise", "a man", "--out", str(out))
    assert code == 1
    assert "exists" in said


def test_heads_of_several_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimise, "SHAPE", Settings(steps=1, views=2))
    out, views = tmp_path / "heads", tmp_path / "views.png"
    prompts = ("a man with red hair", "an old woman")
    code, said = run("optimise", *prompts, "--no-texture", "--out", str(out), "--views", str(views), "--json")
    assert code == 0, said
    facts = json.loads(said.splitlines()[-1])
    assert [each["prompt"] for each in facts] == list(prompts)
    assert [Path(each["out"]).name for each in facts] == ["a-man-with-red-hair-0.glb", "an-old-woman-0.glb"]
    assert [load_head(each["out"]).prompt for each in facts] == list(prompts)
    assert size_of(views) == (768, 512)
    # A head does not depend on what it is made together with.
    alone = tmp_path / "alone.glb"
    code, said = run("optimise", prompts[1], "--no-texture", "--out", str(alone))
    assert code == 0, said
    assert load_head(alone).beta.equal(load_head(facts[1]["out"]).beta)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimise", "a man", "a woman", "--out", "x.glb"], "must be a folder, because there are 2 prompts"),
        (["optimise", "a man", "a man!"], "several prompts would be written to a-man-0.glb"),
        (["optimise", "a man", " "], "the prompt is empty"),
        (["optimise", " ", "--out", "x.glb"], "the prompt is empty"),
        (["optimise", "a man", "--out", "x.obj"], "must end in .glb"),
        (["optimise", "a man", "--out", "x.glb", "--head", "nowhere"], "nowhere"),
        (["optimise", "a man", "--out", "x.glb", "--prior", "nowhere"], "no diffusion model 'nowhere'"),
        (["optimise", "a man", "--out", "x.glb", "--evolution", "x.doc"], "must end in one of"),
        (["components", "--head", "nowhere", "--out", "x.png"], "nowhere"),
        (["view", "x.glb"], "x.glb is not there"),
        (["view", "x.glb", "--yaw", "left"], "must be numbers, separated by spaces or commas"),
        (["view", "x.glb", "--set", "jawOpen"], "must be numbers"),
        (["view", "x.glb", "--set", "neck=1,2"], "must be NAME=VALUE, or three angles"),
        (["animate", "x.glb", "--track", "x.csv", "--out", "x.obj"], "must end in .glb"),
        (["animate", "x.glb", "--track", "x.csv"], "x.glb is not there"),
        (["from-portrait", "a man", "--out", "x.png"], "must end in .glb"),
        (["from-portrait", "a man", "--head", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(*words)
    assert code == 1
    assert message in said
    assert not list(tmp_path.iterdir())


def test_components(tmp_path: Path) -> None:
    code, said = run("components", "--out", str(tmp_path / "components.png"))
    assert code == 0, said
    assert size_of(tmp_path / "components.png") == (8 * 128, 3 * 128)


@pytest.fixture(scope="module")
def glb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "mean.glb"
    load_head(shipped_folder("mini/head")).save_glb(path)
    return path


def test_views_of_a_file(glb: Path, tmp_path: Path) -> None:
    out = tmp_path / "views.png"
    code, said = run(
        *("view", str(glb), "--yaw", "-20,0", "--set", "jawOpen=0.6", "--set", "neck=0,15,0"),
        *("--size", "64", "--out", str(out)),
    )
    assert code == 0, said
    assert size_of(out) == (128, 64)
    code, said = run("view", str(glb), "--set", "jawOpened=1", "--out", str(tmp_path / "other.png"))
    assert code == 1
    assert "unknown expression 'jawOpened'; the nearest are jawOpen" in said


def test_a_head_is_animated(glb: Path, tmp_path: Path) -> None:
    take = tmp_path / "take.json"
    take.write_text(json.dumps([{"jawOpen": 0.1 * i, "eyeBlinkLeft": 0.0} for i in range(5)]))
    out = tmp_path / "talk.glb"
    code, said = run(
        *("animate", str(glb), "--track", str(take), "--track-fps", "10", "--targets", "used"),
        *("--out", str(out), "--json"),
    )
    assert code == 0, said
    facts = json.loads(said)
    assert facts["moments"] == 5
    assert facts["seconds"] == 0.4
    assert facts["expressions"] == ["eyeBlinkLeft", "jawOpen"]
    assert 0 < facts["bytes"] < glb.stat().st_size  # 50 blend shapes are left out
    code, said = run("animate", str(glb), "--track", str(take), "--out", str(tmp_path / "talk.gif"), "--fps", "5")
    assert code == 0, said
    with Image.open(tmp_path / "talk.gif") as film:
        assert getattr(film, "n_frames", 1) >= 1
    assert facts["left_out"] == 0  # no joint turns
    take.write_text(json.dumps([{"jawOpening": 0.1}]))
    code, said = run("animate", str(glb), "--track", str(take), "--out", str(tmp_path / "x.glb"))
    assert code == 1
    assert "unknown names 'jawOpening'; --lenient leaves them out" in said


def test_a_portrait_becomes_a_rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "STEPS", 2)
    out, views = tmp_path / "old.glb", tmp_path / "old.png"
    code, said = run("from-portrait", "an old man", "--out", str(out), "--views", str(views), "--json")
    assert code == 0, said
    assert json.loads(said)["bytes"] == out.stat().st_size
    assert size_of(views) == (5 * 128, 2 * 128)
    assert load_head(out).texture.shape == (3, 128, 128)
