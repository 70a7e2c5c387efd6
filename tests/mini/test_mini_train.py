"""Tests of the driver of the mini trainings and of its cards, with stages that only write a number into a file."""

import json
from dataclasses import replace
from unittest.mock import create_autospec

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image
from safetensors.torch import save_file

from dreamportrait.core.errors import WeightsError
from dreamportrait.mini import cards, train
from dreamportrait.mini.places import Places
from dreamportrait.mini.train import PLAIN, STAGES, STYLED, run_stages
from dreamportrait.miniworld import edit_pool, styled_world, world
from dreamportrait.weights.registry import MINI, STYLES
from dreamportrait.weights.seals import verify


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "work", tmp_path / "out")


@pytest.fixture
def ran(monkeypatch):
    """Replace each stage by one that records its name and writes the files of the real one. Return the record."""
    ran: list[str] = []

    def fake(name):
        def run(places, result):
            ran.append(name)
            if STAGES[name].publishes or name in ("vae", "vae-styles"):
                result.mkdir(parents=True)
                save_file({"w": torch.full((2, 3), float(len(ran)))}, result / f"{name}.safetensors")
                (result / "config.json").write_text(json.dumps({"scores": {"right_ones": 0.51234, "n": {"all": 7}}}))

        return run

    for name, stage in STAGES.items():
        monkeypatch.setitem(STAGES, name, replace(stage, run=fake(name)))
    return ran


EVERYTHING = [*PLAIN, "cards"]


def test_stages_call_what_there_is(places, monkeypatch):
    """Run the real stages. Stand-ins replace the trainings and check the real signatures."""
    from dreamportrait.mini import (
        clip_hard,
        clip_rare,
        clip_said,
        clip_training,
        i2t,
        i2t_any,
        ip2p,
        learnt_styles,
        oracle,
        style_oracle,
        styled_clip,
    )
    from dreamportrait.mini.diffusion import styled, unet, vae
    from dreamportrait.mini.eg3d import stages
    from dreamportrait.text import compact_clip, encoder

    given = {}
    targets = [(clip_training, "train"), (oracle, "train"), (vae, "train_vae"), (unet, "train_unet")]
    targets += [(module, "train") for module in (clip_hard, clip_rare, clip_said, i2t, ip2p, style_oracle, styled_clip)]
    targets += [(styled, "tune_vae"), (styled, "tune_unet"), (i2t_any, "train_any")]
    targets += [(learnt_styles, "learn_all")]
    targets += [(stages, f"train_{name}") for name in ("warm", "details", "mapping", "gan")]
    for module, name in targets:
        real = getattr(module, name)
        given[f"{module.__name__.split('.')[-1]}.{name}"] = stand_in = create_autospec(real)
        monkeypatch.setattr(module, name, stand_in)
    for module in (world, styled_world, edit_pool):
        monkeypatch.setattr(module, "load", create_autospec(module.load, side_effect=lambda split, *_: split))
    monkeypatch.setattr(compact_clip, "load", create_autospec(compact_clip.load))
    monkeypatch.setattr(encoder, "TextEncoder", create_autospec(encoder.TextEncoder))
    (places.result("vae") / "vae").mkdir(parents=True)
    (places.result("vae") / "vae/config.json").write_text("{}")
    for name, stage in STAGES.items():
        stage.run(places, places.result(name))
    assert all(stand_in.called for stand_in in given.values())
    assert [call.args[0] for call in given["clip_training.train"].call_args_list] == ["a", "b"]
    assert [call.args[0] for call in given["styled_clip.train"].call_args_list] == ["s", "t"]
    assert given["ip2p.train"].call_args.args[-1] == "train" and given["styled.tune_vae"].call_args.args[-1] == "train"
    assert given["oracle.train"].call_args.args[2:] == ("train", "test")
    assert (places.result("unet") / "vae/config.json").exists()
    embed = given["unet.train_unet"].call_args.args[3]
    assert embed(["a man"]) is encoder.TextEncoder.return_value.encode.return_value.words
    STAGES["eg3d-gan"].run(replace(places, device="cuda"), places.result("eg3d-gan"))
    assert given["stages.train_gan"].call_args.kwargs == {"device": "cuda"}


def test_all_stages_in_order_once(places, ran, capsys):
    run_stages(EVERYTHING, places)
    assert ran == list(PLAIN)
    assert {path.name for path in places.out.iterdir()} == set(MINI)
    for name in MINI:
        verify(places.out / name)
    run_stages(EVERYTHING, places)
    assert ran == list(PLAIN)
    assert capsys.readouterr().out.count("done before") == len(PLAIN)


def test_models_of_styled_heads_are_made_apart(places, ran):
    run_stages([*STYLED, "style-cards"], places)
    assert ran == list(STYLED)
    assert {path.name for path in places.out.iterdir()} == {stage.part for stage in STAGES.values() if stage.styled} - {
        None
    }
    for name in STYLES:
        verify(places.out / name)
        assert (places.out / name / "README.md").read_text().startswith(f"# mini/{name}\n")


def test_a_stopped_stage_runs_again_and_its_time_adds_up(places, ran, monkeypatch):
    now = iter([0.0, 100.0, 500.0, 530.0])
    monkeypatch.setattr(train.time, "monotonic", lambda: next(now))
    whole = STAGES["oracle"].run

    def stopped(places, result):
        result.mkdir(parents=True)
        (result / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setitem(STAGES, "oracle", replace(STAGES["oracle"], run=stopped))
    with pytest.raises(KeyboardInterrupt):
        run_stages(["oracle"], places)
    assert not (places.out / "oracle").exists() and not train.is_done("oracle", places)
    monkeypatch.setitem(STAGES, "oracle", replace(STAGES["oracle"], run=whole))
    run_stages(["oracle"], places)
    made = {path.name for path in (places.out / "oracle").iterdir()}
    assert made == {"oracle.safetensors", "config.json", "training.json"}
    (facts,) = json.loads((places.out / "oracle/training.json").read_text())["stages"]
    assert (facts["stage"], facts["seconds"]) == ("oracle", 130)


def test_a_stage_without_what_it_needs(places, ran):
    run_stages(["vae"], places)
    with pytest.raises(WeightsError, match="stage unet needs clip-a-said, not done in .*work; run clip-a-said first"):
        run_stages(["unet"], places)
    run_stages(["clip-a", "clip-a-hard", "clip-a-said", "unet"], places)
    assert ran == ["vae", "clip-a", "clip-a-hard", "clip-a-said", "unet"]


def test_folders_of_others_are_left_alone(places, ran):
    """Such folders must be found before the first stage runs, not hours later."""
    (places.out / "oracle").mkdir(parents=True)
    (places.out / "oracle/mine.txt").write_text("mine")
    with pytest.raises(WeightsError, match=r"out/oracle exists and was not made from .*work; name another OUT"):
        run_stages(EVERYTHING, places)
    assert ran == [] and (places.out / "oracle/mine.txt").read_text() == "mine"
    run_stages(["vae", "clip-a"], places)


def test_weights_of_another_run_are_left_alone(places, ran):
    run_stages(["oracle"], places)
    with pytest.raises(WeightsError, match="out/oracle exists and was not made from .*other"):
        run_stages(["oracle"], Places(places.work.with_name("other"), places.out))


def test_what_was_published_and_removed_is_published_again(places, ran):
    run_stages(["oracle"], places)
    places.out.rename(places.out.with_name("elsewhere"))
    run_stages(["oracle"], places)
    assert ran == ["oracle"] and (places.out / "oracle/config.json").exists()


def test_a_result_that_was_changed(places, ran):
    run_stages(["vae"], places)
    (places.result("vae") / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="vae/result is not as it was sealed; changed: 'config.json'"):
        run_stages(["vae"], places)


def test_one_process_at_a_time(places, ran):
    (places.work / "vae").mkdir(parents=True)
    with (
        FileLock(places.work / "vae/lock"),
        pytest.raises(WeightsError, match="work/vae is in use: another process trains this stage"),
    ):
        run_stages(["vae"], places)
    run_stages(["vae"], places)


def test_estimates(monkeypatch):
    for name, stage in STAGES.items():
        monkeypatch.setitem(STAGES, name, replace(stage, cpu=20, gpu=3))
    lines = train.estimates().splitlines()
    assert lines[1] == "world            20 min      3 min"
    assert lines[-2:] == ["all             260 min     39 min", "styles          200 min     30 min"]


# Cards.


def test_a_card(places, ran):
    run_stages(list(PLAIN), places)
    folder = places.out / "diffusion"
    (folder / "scores.json").write_text(json.dumps({"samples": {"judge": 0.75}}))
    picture = Image.frombytes("RGB", (500, 500), torch.randint(256, (750_000,), dtype=torch.uint8).numpy().tobytes())
    picture.save(folder / "sheet.png")
    before = (folder / "sheet.png").stat().st_size
    run_stages(["cards"], places)
    text = (folder / "README.md").read_text()
    assert text.startswith("# mini/diffusion\n")
    for part in (
        "Apache-2.0",
        "0.00 million parameters",
        "| `python -m dreamportrait.mini.train vae` | 0 min |",
        "| `python -m dreamportrait.mini.train unet` | 0 min |",
        "| right ones | 0.5123 |",
        "| n, all | 7 |",
        "| samples, judge | 0.75 |",
        'from_pretrained("mini/diffusion")',
        "![samples](sheet.png)",
    ):
        assert part in text, part
    assert (folder / "sheet.png").stat().st_size < before / 2
    assert "sheet.png" not in (places.out / "oracle/README.md").read_text()
    verify(folder)
    assert cards.parameters(folder) == 6


def test_cards_of_what_is_missing_or_too_large(places, ran, monkeypatch):
    run_stages(["oracle"], places)
    with pytest.raises(WeightsError, match="out lacks clip-a, clip-b, diffusion, eg3d; train their stages first"):
        run_stages(["cards"], places)
    run_stages(list(PLAIN), places)
    monkeypatch.setattr(cards, "TOTAL_BYTES", 1000)
    with pytest.raises(WeightsError, match="bytes; at most 1000 may be shipped"):
        run_stages(["cards"], places)
    with pytest.raises(WeightsError, match="unknown model 'clip-c'"):
        cards.write(places.out / "oracle", "clip-c")


# The command.


def test_the_command(tmp_path, ran):
    arguments = ["oracle", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(train.main, arguments)
    assert done.exit_code == 0 and ran == ["oracle"], done.output
    assert "two cores" in done.output and "one GPU" in done.output
    refused = CliRunner().invoke(train.main, ["unet", *arguments[1:]])
    assert refused.exit_code == 1 and "Error: stage unet needs vae and" not in refused.output
    assert "Error: stage unet needs vae, clip-a" in refused.output and "Traceback" not in refused.output
    assert CliRunner().invoke(train.main, ["wolf", *arguments[1:]]).exit_code == 2


@pytest.mark.parametrize(("device", "code"), [("foo", 2), ("meta", 2), ("cuda", 1)])
def test_devices_that_are_not_there(tmp_path, monkeypatch, device, code):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    places = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(train.main, ["unet", *places, "--device", device])
    assert isinstance(done.exception, SystemExit) and done.exit_code == code, done.output
    assert ("sees no GPU here; choose cpu" if code == 1 else "is not one of") in done.output
    assert not (tmp_path / "work").exists()
