"""Commands start at once: help without PyTorch, a portrait without the packages that only training needs."""

import subprocess
import sys

import pytest
from places import ROOT

HEAVY = ("torch", "numpy", "diffusers", "transformers", "open_clip", "lightning", "torchvision")
SCRIPTS = (
    *("train.py", "datasets/miniworld.py", "datasets/encode_captions.py", "tools/check_cuda.py"),
    *("eval/ablations.py", "eval/baselines.py", "eval/efficiency.py", "eval/fid_msc_rp.py"),
    *("-m dreamportrait", "-m dreamportrait sample", "-m dreamportrait evaluate", "-m dreamportrait convert eg3d"),
    *("-m dreamportrait convert flame", "-m dreamportrait convert gnm", "-m dreamportrait convert ict-facekit"),
    *("-m dreamportrait video", "-m dreamportrait mix", "-m dreamportrait mesh", "-m dreamportrait splats"),
    *("-m dreamportrait view", "-m dreamportrait invert", "-m dreamportrait verify", "-m dreamportrait doctor"),
    *("-m dreamportrait head optimise", "-m dreamportrait head components"),
    *("-m dreamportrait head view", "-m dreamportrait head animate", "-m dreamportrait head from-portrait"),
    *("-m dreamportrait style", "-m dreamportrait style learn", "-m dreamportrait style apply"),
    *("-m dreamportrait style list", "eval/styles.py"),
    *("-m dreamportrait.mini.demo", "-m dreamportrait.mini.train", "-m dreamportrait.mini.publish"),
    *("-m dreamportrait.mini.ideal", "-m dreamportrait.mini.ceilings", "-m benchmarks", "-m benchmarks.ops"),
    *("-m dreamportrait.mini.head", "-m dreamportrait.mini.head.ceiling"),
    *("-m benchmarks.generator", "-m benchmarks.training", "-m benchmarks.sharpness"),
    *("-m benchmarks.mesh", "-m benchmarks.viewer"),
)


def imported(code: str) -> set[str]:
    """Return the modules that a fresh process has imported after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, sep='\\n', file=sys.__stderr__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_no_heavy_package(script: str) -> None:
    words = script.split()
    run, name, rest = ("run_module", words[1], words[2:]) if words[0] == "-m" else ("run_path", words[0], words[1:])
    code = f"""
import runpy, sys
sys.argv = {[name, *rest, "--help"]!r}
try:
    runpy.{run}({name!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code
"""
    assert not imported(code) & set(HEAVY)


def test_a_portrait_needs_neither_open_clip_nor_the_compiler() -> None:
    code = "from dreamportrait import DreamPortraitPipeline\n"
    code += "DreamPortraitPipeline.from_pretrained('mini')('a man with a hat')"
    unneeded = {"open_clip", "transformers", "diffusers", "torchvision", "lightning", "torch._dynamo", "sympy"}
    assert not imported(code) & unneeded


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("sample x --out x.png --model nowhere", "no text-to-3D model 'nowhere'"),
        ("sample x --out x.doc", "must end in one of .png"),
        ("video x --out x.avi", "must end in one of .mp4"),
        ("video x --path nowhere", "must be orbit, ellipse or a file"),
        ("mesh x --out x.stl", "must end in one of .glb"),
        ("head optimise x --out x.stl", "must end in .glb"),
        ("evaluate --checkpoint nowhere --dataset miniworld:test --out x", "checkpoint nowhere is not there"),
        ("evaluate --checkpoint mini --dataset miniworld:best --out x", "no split 'best'"),
        ("train --config nowhere.yaml", "nowhere.yaml is not there"),
        ("style apply nowhere.png --style x", "nowhere.png is not there"),
        ("style mix nowhere.png a:much", "the weight 'much' is no number"),
        ("style inspect nowhere", "no style 'nowhere'"),
    ],
)
def test_wrong_names_are_refused_before_pytorch_is_imported(command: str, message: str) -> None:
    code = f"""
import contextlib, io, sys
from dreamportrait.cli import main
sys.stderr = said = io.StringIO()
try:
    main({command.split()!r})
except SystemExit as end:
    assert end.code == 1
assert {message!r} in said.getvalue(), said.getvalue()
"""
    assert "torch" not in imported(code)
