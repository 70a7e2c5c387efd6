"""Tests of the ablations on a prepared data set, with stand-ins for generator, CLIPs and diffusion model."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from diffusion_folders import write_mini
from scripts import load_script
from stand_ins import landmarks_of, write_photos
from tiny_training import SIZE
from toy_run import arguments, write_clip, write_sources

from dreamportrait.data.preparation.run import prepare
from dreamportrait.data.preparation.settings import Settings
from dreamportrait.systems.dreamportrait.ablations.rows import fewer, rows_of, tables_of
from dreamportrait.systems.dreamportrait.ablations.study import read_results
from dreamportrait.systems.dreamportrait.config import load_config

SCRIPT = load_script("eval/ablations.py")
COUNT = 24


class Lab(NamedTuple):
    """What a laboratory has: a data set, and a configuration that names everything else."""

    data: Path
    config: Path
    judge: Path

    def run(self, out: Path, *words: object) -> Result:
        given = ["--world", self.data, "--config", self.config, "--clip", self.judge, "--out", out, "--seeds", 1]
        given += ["--extractor", f"clip:{self.judge}", "--samples", 4]
        return CliRunner().invoke(SCRIPT.main, [str(word) for word in (*given, *words)])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    sources = write_sources(folder / "sources")
    write_mini(folder / "sources" / "DIFFUSION", width=8)
    diffusion = folder / "sources" / "DIFFUSION" / "config.json"
    diffusion.write_text(json.dumps(json.loads(diffusion.read_text()) | {"text_encoder": str(sources / "CLIP")}))
    write_clip(folder / "JUDGE")
    changes = ["guidance.kind=sds", f"guidance.source={sources / 'DIFFUSION'}", "samples.prompts=[]"]
    changes += ["loss.guidance_ratio=1.5", "data.path=/is/given/by/world", "text.store=null"]
    _, yaml, *words = arguments(sources, folder, *changes)
    (folder / "lab.yaml").write_text(load_config(yaml, words[1::2]).to_yaml())
    return Lab(prepared(folder), folder / "lab.yaml", folder / "JUDGE")


def prepared(folder: Path) -> Path:
    write_photos(folder / "photos", COUNT)
    splits = ["train"] * 8 + ["validation"] * 8 + ["test"] * 8
    rows = [{"file": f"{i:03d}.jpg", "captions": [f"face {i}"], "split": split} for i, split in enumerate(splits)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(resolution=SIZE, per_shard=8, least_side=SIZE, kind="png")
    photos, captions = folder / "photos", folder / "captions.jsonl"
    prepare(photos, folder / "data", settings, landmarks=landmarks_of(photos), captions=captions)
    return folder / "data"


def test_the_plan_trains_on_the_folder(lab: Lab, tmp_path: Path) -> None:
    done = lab.run(tmp_path, "--plan")
    assert done.exit_code == 0, done.output
    commands = [line for line in done.output.splitlines() if line.startswith("python train.py")]
    # The tiny generator has places for two adapters, so that there is one row with fewer.
    assert len(commands) == 10 and all(f"'data.path={lab.data}'" in line for line in commands)
    (clip,) = (line for line in commands if "guidance.kind=clip" in line)
    assert "loss.guidance_weight" not in clip  # the ratio gives the weight
    assert "# adapters-1-seed0" in done.output and "# adapters-2-seed0" not in done.output
    assert not (tmp_path / "trainings").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--world", "/no/such"],
            "--world /no/such: must be mini, or a folder that `dreamportrait data prepare` wrote",
        ),
        (["--rows", "adapters-2"], "no row 'adapters-2'; must be some of pretrained,base"),
        (["--clip", "CLIP"], "which also judges; the judge must not guide"),
        (["--samples", 1], "1 is not in the range x>=2"),
        (["--images", 3], "3 images are no whole number of batches"),
        (["--samples", 9], "validation has 8 pictures; measure at most as many"),
        (["--extractor", "fid"], "extractor 'fid': must be inception"),
    ],
)
def test_wrong_commands(lab: Lab, tmp_path: Path, words: list[object], message: str) -> None:
    words = [load_config(lab.config).text.clip if word == "CLIP" else word for word in words]
    done = lab.run(tmp_path / "out", "--plan", *words)
    assert done.exit_code != 0 and message in done.output, done.output
    assert not (tmp_path / "out" / "trainings").exists()


@pytest.mark.slow  # trains in processes of their own
def test_rows_are_trained_measured_and_continued(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMPORTRAIT_CACHE", str(tmp_path / "cache"))
    done = lab.run(tmp_path, "--rows", "pretrained,base,clip,local", "--images", 8)
    assert done.exit_code == 0, done.output
    found = {result["row"]: result for result in read_results(tmp_path)}
    assert found.keys() == {"pretrained", "base", "clip", "local"}
    for result in found.values():
        assert result["report"]["dataset"]["source"] == f"{lab.data}:validation"
        assert result["report"]["judge"]["clip"] == str(lab.judge) and result["report"]["scores"]["oracle"] is None
    page = (tmp_path / "ablations.md").read_text()
    assert (
        f"`python eval/ablations.py --world {lab.data} --config {lab.config} --seeds 1 --images 8 --samples 4" in page
    )
    assert "## What differs from the paper in all rows" in page and "FID(clip " in page
    assert "1.5 times the adversarial gradient at the picture" in page
    again = lab.run(tmp_path, "--rows", "pretrained,base,clip,local", "--images", 8)
    assert again.output.count("has a result already") == 4


@pytest.mark.parametrize(("sites", "counts"), [(1, ()), (2, (1,)), (3, (1, 2)), (4, (1, 2)), (6, (2, 4))])
def test_fewer_adapters(sites: int, counts: tuple[int, ...]) -> None:
    assert fewer(sites) == counts
    resolutions = [4 << i for i in range(sites)]
    rows = {row.name for row in rows_of(resolutions, by_ratio=True)}
    (table,) = (table for table in tables_of(resolutions) if table.title.startswith("Table 3b"))
    assert [line.row for line in table.lines] == [*(f"adapters-{count}" for count in counts), "base"]
    assert {line.row for table in tables_of(resolutions) for line in table.lines} | {"pretrained"} == rows
