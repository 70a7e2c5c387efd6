"""Tests of configurations: shipped files are valid, all problems are reported at once, a resolved file reads back."""

from pathlib import Path

import pytest
import yaml
from places import ROOT

from dreamportrait.core import settings
from dreamportrait.core.settings import ConfigError
from dreamportrait.systems.dreamportrait.config import Config, batch_problems, load_config

CONFIGS = sorted((ROOT / "configs" / "dreamportrait").rglob("*.yaml"))
MINIMAL = "run: {name: x}\ndata: {kind: miniworld}\nstages: [{name: one, images: 64}]\n"


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    return [str(problem) for problem in settings.read(Config, path, overrides)[1]]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Shipped files.


def test_the_named_files_are_there():
    names = {"celebatext_hq", "celebatext_hq_paper", "mini", "mini_speak", "mini_long", "test"}
    assert names <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_files_are_valid_and_name_themselves(path):
    config = load_config(path)
    assert config.run.name == path.stem


@pytest.mark.parametrize("name", ["celebatext_hq", "celebatext_hq_paper"])
def test_every_number_of_the_full_recipes_has_a_source(name):
    """A line with a number must end in a comment that says whether it is the paper's, EG3D's or ours."""
    text = (CONFIGS[0].parent / f"{name}.yaml").read_text()
    lines, bare = text.splitlines(), []

    def visit(node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode):
            if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") or is_number(node.value):
                comment = lines[node.start_mark.line].partition("#")[2]
                if not any(source in comment for source in ("paper", "EG3D", "ours")):
                    bare.append(lines[node.start_mark.line])
        elif isinstance(node, yaml.SequenceNode):
            for each in node.value:
                visit(each)
        elif isinstance(node, yaml.MappingNode):
            for _, each in node.value:
                visit(each)

    visit(yaml.compose(text))
    assert bare == []


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_resolved_configuration_reads_back_to_the_same(path, tmp_path):
    config = load_config(path)
    assert load_config(written(tmp_path / "resolved.yaml", config.to_yaml())) == config


def test_the_papers_numbers():
    config = load_config(CONFIGS[0].parent / "celebatext_hq_paper.yaml")
    assert [(stage.images, stage.guidance) for stage in config.stages] == [(500_000, False), (1_000_000, True)]
    assert config.data.batch == 32
    assert not batch_problems(config, 8, 4) and batch_problems(config, 16, 4)
    assert config.guidance.kind == "sds" and config.guidance.source == "sd-2.0-base"
    assert config.model.conditioning.adapters is None and config.model.conditioning.gate
    assert config.model.conditioning.plain_mapper and config.loss.keep_weight == 0
    assert config.loss.text_aware_discriminator
    assert config.loss.blur_fade_images > 0 and config.loss.swap_probability == 0.5
    assert not batch_problems(config, processes=8)


ABLATIONS = [
    "model.conditioning.pooling=false",
    "model.conditioning.gate=false",
    "model.conditioning.global_path=false",
    "model.conditioning.local_path=false",
    "model.conditioning.plain_mapper=true",
    "model.conditioning.adapters=[4,8]",
    "model.conditioning.adapters=[4,8,16,32]",
    "model.freeze_generator=true",
    "model.freeze_discriminator=true",
    "guidance.kind=none",
    "guidance.kind=clip",
    "guidance.kind=sjc",
    "loss.text_aware_discriminator=true",
]


@pytest.mark.parametrize("override", ABLATIONS)
def test_each_ablation_is_one_key(override, minimal):
    plain, changed = (load_config(minimal, given).model_dump(mode="json") for given in ([], [override]))
    key, value = override.split("=")
    section, *rest, last = key.split(".")
    place = changed[section]
    for part in rest:
        place = place[part]
    assert place[last] == yaml.safe_load(value)
    differing = [name for name in plain if plain[name] != changed[name]]
    assert differing == [section]


# Problems.


def test_everything_wrong_is_said_at_once(tmp_path):
    path = written(
        tmp_path / "bad.yaml",
        """
run: {name: x}
data: {kind: folder, batch: 16, wrokers: 3}
loss: {r1_gamma: -1}
bogus: 3
stages:
  - {name: one, images: 1500}
  - {name: one, images: 1600, accumulate: 3, guidance: 7}
""",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["guidance.t_min=0.99", "model.conditioning.local_path=false", "nonsense", "optim.lr_x=1"])
    text = str(caught.value)
    for expected in (
        "bad.yaml: 11 problems",
        "--set nonsense: must be section.key=value",
        "data.wrokers: unknown; did you mean workers?",
        "loss.r1_gamma: -1: input should be greater than or equal to 0",
        "bogus: unknown; known are data,",
        "optim.lr_x: unknown; known are",
        "stages.1.guidance: 7: input should be a valid boolean",
        "data.path: missing",
        "guidance.t_min and guidance.t_max: 0.99 must be below 0.98",
        "stages.0.images and data.batch: 1500 images are no whole number of batches of 16",
        "1488 and 1504",
        "stages.1.name: one is used twice",
        "data.batch and stages.1.accumulate: a batch of 16 does not divide into 3 parts",
    ):
        assert expected in text, expected
    assert len(caught.value.problems) == text.count("\n  - ") == 11


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.conditioning={global_path: false, local_path: false}", "turn one on"),
        ("model.conditioning.adapters=[]", "model.conditioning.local_path=false instead"),
        ("model.conditioning.adapters=[8,4]", "ascending"),
        ("loss={keep_weight: 1.0}\nmodel.conditioning.plain_mapper=true", "no offset to w that could be penalised"),
        ("model.conditioning.heads=3", "64 channels do not divide into 3 heads"),
        ("data.captions=a.jsonl", "writes its own captions"),
        ("data.kind=zip", "'zip': input should be 'miniworld' or 'folder'"),
        ("stages=[]", "the paper has two"),
        ("run.name=a/b", "string should match pattern"),
        ("optim.lr_generator=nan", "finite"),
        ("optim.lr_generator=0", "greater than 0"),
        ("data.batch=1.5", "data.batch: 1.5: "),
        ("trainer.devices=many", "valid integer"),
        ("logging.wandb=on", "'online', 'offline' or 'off'"),
        ("data=3", "data: 3: "),
        ("stages.1.images=3", "from 0 to 0"),
        ("run.name.x=3", "name is 'x', no section"),
        ("loss.gan_weight={", "is no YAML"),
    ],
)
def test_one_thing_wrong(minimal, override, expected):
    found = problems(minimal, *override.split("\n"))
    assert len(found) == 1 and expected in found[0], found


def test_what_follows_from_another_problem_is_not_reported(minimal):
    assert len(problems(minimal, "data.batch=-5", "stages.0.accumulate=7")) == 1


def test_missing_sections_and_keys(tmp_path):
    found = problems(written(tmp_path / "a.yaml", "stages: [{name: one}]\nextra: 1\n"))
    assert [text for text in found if "missing, and has no default" in text] == [
        "run: missing, and has no default",
        "data: missing, and has no default",
    ]
    assert any(text.startswith("extra: unknown") for text in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- 1\n", "must hold sections"),
        ("", "must hold sections"),
        ("run: {name: a", "is no YAML"),
        ("run: {name: a}\nrun: {name: b}\n", "'run' is there twice"),
        ("run: !!python/object/apply:os.getcwd []\n", "is no YAML"),
    ],
)
def test_files_that_are_none(tmp_path, text, expected):
    with pytest.raises(ValueError, match=expected):
        load_config(written(tmp_path / "a.yaml", text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.yaml is not there"):
        load_config(tmp_path / "nowhere.yaml")


def test_yaml_means_what_it_says(minimal):
    config = load_config(minimal, ["logging.wandb=off", "optim.lr_generator=1e-3", "stages.0.images=64_000"])
    assert config.logging.wandb == "off" and config.optim.lr_generator == 1e-3
    assert config.stages[0].images == 64_000 and config.loss.swap_probability == 0.5
    assert load_config(minimal, ["loss.swap_probability=null"]).loss.swap_probability is None
    assert load_config(minimal, ["run.name=1e3x"]).run.name == "1e3x"


def test_overrides_reach_sections_that_the_file_leaves_out(minimal):
    config = load_config(minimal, ["model.conditioning.adapters=[4]", "stages.0.name=first"])
    assert config.model.conditioning.adapters == (4,) and config.stages[0].name == "first"


def test_configurations_do_not_change(minimal):
    config = load_config(minimal)
    with pytest.raises(ValueError, match="frozen"):
        config.run.seed = 3


# Stages and batches.


def stages(config: Config, *seen: int) -> list[str]:
    return [config.stage_at(images).name for images in seen]


def test_stages_follow_each_other_by_images(minimal):
    config = load_config(minimal, ["stages=[{name: a, images: 32}, {name: b, images: 64, guidance: true}]"])
    assert config.total_images == 96 and config.needs_guidance
    assert stages(config, 0, 31, 32, 95, 96, 1000) == ["a", "a", "b", "b", "b", "b"]
    assert not load_config(minimal).needs_guidance
    assert not load_config(minimal, ["guidance.kind=none", "stages.0.guidance=true"]).needs_guidance


def test_batches_divide_among_processes_and_parts(minimal):
    config = load_config(minimal, ["stages=[{name: a, images: 64}, {name: b, images: 64, accumulate: 4}]"])
    assert not batch_problems(config, processes=8)
    [problem] = batch_problems(config, processes=16)
    assert "16 processes x 4 parts" in str(problem) and "stages.1.accumulate" in problem.keys
    assert len(batch_problems(config, processes=5)) == 2


@pytest.mark.parametrize(
    ("batch", "accumulate", "works"),
    [(32, 1, True), (32, 2, False), (64, 2, True), (48, 1, False), (80, 1, False), (96, 3, True)],
)
def test_parts_hold_whole_groups_of_the_discriminators_statistics(minimal, batch, accumulate, works):
    stages = f"stages=[{{name: a, images: {batch * 10}, accumulate: {accumulate}}}]"
    config = load_config(minimal, [f"data.batch={batch}", stages])
    found = batch_problems(config, processes=8, group=4)
    assert not found if works else f"multiple of {32 * accumulate}, or fewer parts" in str(found[0])


def test_a_critic_that_reads_needs_two_samples_in_each_part(minimal):
    config = load_config(minimal, ["stages=[{name: a, images: 64, accumulate: 4}]"])
    assert not batch_problems(config, processes=8)
    read = "loss.text_aware_discriminator=true"
    reading = load_config(minimal, ["stages=[{name: a, images: 64, accumulate: 4}]", read])
    assert not batch_problems(reading, processes=4)
    [problem] = batch_problems(reading, processes=8)
    assert "no other prompt" in str(problem)


# Configurations that start from another one.


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_own_settings_are_put_on_top_of_the_base(tmp_path):
    base = "run: {name: base, seed: 3}\ndata: {kind: miniworld, batch: 8}\nstages: [{name: a, images: 8}]\n"
    write(tmp_path, base=base, longer="base: base.yaml\nrun: {name: longer}\nstages: [{name: b, images: 80}]\n")
    write(tmp_path / "deep", third="base: ../longer.yaml\ndata: {batch: 4}\n")
    config = load_config(tmp_path / "deep" / "third.yaml", ["run.name=last"])
    assert (config.run.name, config.run.seed, config.data.kind, config.data.batch) == ("last", 3, "miniworld", 4)
    assert [(stage.name, stage.images) for stage in config.stages] == [("b", 80)]  # lists replace lists


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml\n", "base nowhere.yaml is not there; name a file, relative to this one"),
        ("base: [a, b]\n", r"base is \['a', 'b'\]; name one file"),
        ("base: ./mine.yaml\n", "leads back to"),
        ("base: other.yaml\n", "leads back to"),
    ],
)
def test_wrong_bases(tmp_path, text, message):
    write(tmp_path, mine=text, other="base: mine.yaml\n")
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["mini", "mini_long", "celebatext_hq", "test"])
def test_former_paths_still_lead_to_the_configurations(name):
    assert load_config(ROOT / "configs" / f"{name}.yaml") == load_config(CONFIGS[0].parent / f"{name}.yaml")


def test_the_longer_run_differs_from_the_demo_in_size_and_needs_less_guidance():
    first, second = (load_config(CONFIGS[0].parent / name) for name in ("mini_speak.yaml", "mini_long.yaml"))
    changed = {"run": second.run, "stages": second.stages, "data": second.data}
    assert first.model_copy(update=changed) == second
    assert first.prior is not None and second.prior is not None
    assert second.prior.faces > first.prior.faces and second.prior.scale < first.prior.scale


def test_another_system_is_refused(tmp_path):
    write(tmp_path, other="system: freestyle\nrun: {name: a}\ndata: {kind: miniworld}\nstages: []\n")
    with pytest.raises(ConfigError, match="system: 'freestyle': input should be 'dreamportrait'"):
        load_config(tmp_path / "other.yaml")


def test_guidance_on_top_begins_with_the_prior_of_the_shipped_model() -> None:
    """Lists of stages replace those of the base file, so both files spell the prior out."""
    folder = ROOT / "configs" / "dreamportrait"
    shipped, guided = (load_config(folder / f"{name}.yaml") for name in ("mini_long", "mini_guided"))
    assert guided.stages[0] == shipped.stages[0]
