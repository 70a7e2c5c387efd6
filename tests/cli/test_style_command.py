"""Tests of the group `style`: results, refusals, and that a refused command writes nothing."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from tiny_styles import write_model, write_photo

from dreamportrait.cli import main
from dreamportrait.cli.style import read_weights
from dreamportrait.systems.freestyle.adapter import StyleAdapter
from dreamportrait.systems.freestyle.tuning import tune_network
from dreamportrait.weights.seals import seal

pytestmark = pytest.mark.lengthy


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Write a model, a photo, and a style that was learnt by the command."""
    folder = tmp_path_factory.mktemp("style")
    write_model(folder)
    write_photo(folder / "photo.png")
    (folder / "old.txt").write_text("an old man\na very old man\n")
    done = style(folder, "learn", "--prompts", "old.txt", "--out", "styles/old", "--seed", "3", "--set", "tune.lr=0.01")
    assert done.exit_code == 0 and "of the editor's colours were clipped" in done.output, done.output
    return folder


def style(place: Path, *words: str) -> Result:
    """Run a command in a folder. Words that name a file there become its path."""
    runner = CliRunner()
    paths = [str(place / word) if (place / word).exists() or word.startswith("styles/") else word for word in words]
    model = ["--model", str(place / "model")] if words[0] not in ("list", "inspect") else []
    return runner.invoke(main, ["style", *paths, *model])


def files(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if path.is_file()}


def test_learning_leaves_a_style_and_its_data(place):
    adapter = StyleAdapter.load(place / "styles" / "old")
    assert adapter.about.styles == ("an old man", "a very old man") and adapter.about.seeds == ("3", "4")
    assert {path.name for path in (place / "styles" / "old.learning").iterdir()} >= {"plan.json", "fewshot", "tuning"}
    plan = json.loads((place / "styles" / "old.learning" / "plan.json").read_text())
    assert plan["tuning"]["lr"] == 0.01 and plan["few_shot"]["identities"] == 2


def test_a_style_and_an_instruction_are_applied(place, tmp_path):
    sheet = str(tmp_path / "old.png")
    given = ("apply", "photo.png", "--style", "styles/old", "--out", sheet, "--views", "2", "--json")
    done = style(place, *given, "--save", str(tmp_path / "old.safetensors"), "--strength", "0.5")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["strength"] == 0.5 and facts["style"].endswith("styles/old") and facts["photo_checked"] is False
    with Image.open(sheet) as picture:
        assert picture.width > picture.height and (tmp_path / "old.safetensors").exists()
    again = style(place, *given)
    assert again.exit_code == 1 and "old.png exists" in again.output
    told = style(place, "apply", "photo.png", "make it old", "--out", str(tmp_path / "told.png"), "--views", "1")
    assert told.exit_code == 0 and "told.png: make it old" in told.output
    assert "nobody checked that the photo" in told.output


def test_mixing(place, tmp_path):
    done = style(place, "mix", "photo.png", f"{place / 'styles/old'}:0.6", "--out", str(tmp_path / "mix.png"), "--json")
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout.splitlines()[-1])["styles"].values()) == [0.6]


def test_styles_are_listed_and_inspected(place):
    listed = style(place, "list", str(place / "styles"))
    assert (
        listed.exit_code == 0 and "an old man; rank 2, 2 identities x 3 views, reads the photo itself" in listed.output
    )
    values = json.loads(style(place, "list", str(place / "styles"), "--json").output)
    own = [name for name in values if not name.startswith("mini/styles/")]
    assert len(own) == 1 and own[0].endswith("styles/old") and "mini/styles/elf" in values
    found = style(place, "inspect", "styles/old").output
    assert "an old man; a very old man" in found and "turn the head into an old man, young" in found
    assert "psnr_of_edited_views" in found and "SHA-256" in found
    about = json.loads(style(place, "inspect", "styles/old", "--json").output)
    assert about["rank"] == 2 and about["licence"] == "of the tests"


def test_a_style_is_measured(place, tmp_path):
    out = tmp_path / "scores.json"
    given = ("evaluate", "styles/old", "--faces", "2", "--oracle", "none", "--clip", "mini/clip-b")
    done = style(place, *given, "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts == json.loads(out.read_text())
    assert set(facts["scores"]) == {"between_views", "roughness", "clip", "seconds"}


def test_a_style_is_measured_by_what_is_shipped(place):
    done = style(place, "evaluate", "styles/old", "--faces", "2", "--json")
    assert done.exit_code == 0, done.output
    assert "clip" not in json.loads(done.stdout.splitlines()[-1])["scores"]


def test_learning_continues_where_it_was_stopped(place, monkeypatch):
    """Tuning fails at first; the edited views stay, and the next call needs no editor's steps."""
    given = ("learn", "an old man", "--out", "styles/again", "--json")

    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("dreamportrait.systems.freestyle.tuning.tune_network", broken)
        failed = style(place, *given)
    assert failed.exit_code == 1 and "the disk is full" in failed.output
    assert not (place / "styles/again").exists()
    work = place / "styles/again.learning"
    before = (work / "fewshot/world.json").stat().st_mtime_ns
    assert tune_network is not broken
    done = style(place, *given)
    assert done.exit_code == 0, done.output
    assert (work / "fewshot/world.json").stat().st_mtime_ns == before
    assert json.loads(done.stdout.splitlines()[-1])["styles"] == ["an old man"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("apply none.png --style styles/old", "none.png is not there"),
        ("apply photo.png", "say what to make"),
        ("apply photo.png hat --style styles/old", "say what to make"),
        ("apply photo.png hat --strength 0.5", "--strength is of a learnt style"),
        ("apply photo.png --style styles/old --strength 3", "3.0 is not in the range 0<=x<=2"),
        ("apply photo.png --style styles/none", "no style"),
        ("apply photo.png --style model", "a folder without adapter.json"),
        ("apply photo.png --style styles/old --out x.doc", "must end in one of .png"),
        ("apply wide.png --style styles/old", "16 x 12 pixels: it must be square"),
        ("apply small.png --style styles/old", "at least 8 a side are needed"),
        ("apply old.txt --style styles/old", "no picture that can be read"),
        ("apply photo.png xyzzy", "the editor knows none of the words 'xyzzy'; it knows the styles stone statue"),
        ("learn --out styles/new", "name one style in quotes"),
        ("learn a --prompts old.txt --out styles/new", "name one style in quotes"),
        ("learn a --out styles/old", "exists and is not empty"),
        ("learn --prompts twice.txt --out styles/new", "line 2 is empty, line 3 repeats line 1"),
        ("learn qwrt --out styles/new", "the editor knows none of the words 'qwrt'"),
        ("learn a --out styles/new --identities 11 --views 100", "are 1100 pictures to edit, more than 1000"),
        ("learn a --out styles/new --identities 101", "at most 100"),
        ("learn a --out styles/new --set tune.step=3", "did you mean steps?"),
        ("learn a --out styles/new --set tune.perceptual=clip:mini/clip-t", "must not see training"),
        ("learn a --out styles/new --set edit.start=0.01", "leaves no step"),
        ("learn a --out styles/new --config none.yaml", "none.yaml is not there"),
        ("mix photo.png styles/old:much", "the weight 'much' is no number"),
        ("mix photo.png styles/old:-1", "a weight must be a number from 0"),
        ("mix photo.png styles/old:0", "sum to 0"),
        ("list nowhere", "nowhere is no folder"),
        ("inspect styles/none", "no style"),
        ("evaluate styles/old --oracle mini/oracle", "must be mini/style-oracle or none"),
        ("evaluate styles/old --out x.txt", "must end in one of .json"),
    ],
)
def test_bad_input_gets_one_message_and_writes_nothing(place, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not (place / "wide.png").exists():
        Image.new("RGB", (16, 12)).save(place / "wide.png")
        write_photo(place / "small.png", 7)
        (place / "twice.txt").write_text("an elf\n\nAn  elf\n")
    before = files(place)
    done = style(place, *words.split())
    assert done.exit_code in (1, 2) and message in done.output, done.output
    assert "Traceback" not in done.output and files(place) == before and not files(tmp_path)


def test_empty_words_are_refused(place):
    assert "the instruction is empty" in style(place, "apply", "photo.png", " ").output
    assert "the style is empty" in style(place, "learn", " ", "--out", "styles/new").output


def test_damaged_and_foreign_styles_are_refused(place, tmp_path):
    adapter = StyleAdapter.load(place / "styles" / "old")
    adapter.save(tmp_path / "bent")
    values = json.loads((tmp_path / "bent" / "adapter.json").read_text())
    (tmp_path / "bent" / "adapter.json").write_text(json.dumps(values | {"base_sha256": "0" * 64}))
    refused = style(place, "apply", "photo.png", "--style", str(tmp_path / "bent"))
    assert refused.exit_code == 1 and "is not as it was sealed" in refused.output
    seal(tmp_path / "bent")
    refused = style(place, "apply", "photo.png", "--style", str(tmp_path / "bent"))
    assert refused.exit_code == 1 and "(000000000000), this one is" in refused.output
    (tmp_path / "bent" / "adapter.json").write_text(json.dumps(values | {"format_version": 2}))
    refused = style(place, "apply", "photo.png", "--style", str(tmp_path / "bent"))
    assert refused.exit_code == 1 and "format_version 2" in refused.output


def test_not_a_number_while_tuning_keeps_the_views(place, monkeypatch):
    def not_a_number(seen: torch.Tensor, *_: object) -> torch.Tensor:
        return seen.mean() * float("nan")

    monkeypatch.setattr("dreamportrait.systems.freestyle.tuning.reconstruction_loss", not_a_number)
    refused = style(place, "learn", "an old man", "--out", "styles/nan", "--set", "tune.density_weight=0")
    assert refused.exit_code == 1 and "step 1" in refused.output, refused.output
    assert (place / "styles/nan.learning/fewshot/world.json").exists() and not (place / "styles/nan").exists()


def test_weights():
    assert read_weights(("a:0.5", "b")) == {"a": 0.5, "b": 1.0}
    with pytest.raises(ValueError, match="named twice"):
        read_weights(("a:1", "a:2"))
