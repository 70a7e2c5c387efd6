"""The free-style system in full size: one edit, one pretraining and one tuning step with random weights."""

import json
import subprocess
import sys

import pytest
from full_size_styles import run
from places import ROOT

MOST_GB = 24


def check(found: dict) -> None:
    for part in ("pretraining", "tuning"):
        assert not found[part].pop("no") and not found[part].pop("bad")
        assert all(0 <= loss < float("inf") for loss in found[part].values()), found[part]
    assert found["frozen"] and found["edited"]["finite"]


@pytest.mark.lengthy
def test_the_script_with_small_networks():
    found = run("small")
    check(found)
    assert found["edited"]["shape"] == [1, 3, 16, 16]


@pytest.mark.slow
def test_full_size():
    script = ROOT / "tests" / "support" / "full_size_styles.py"
    environment = {"PYTHONPATH": f"{ROOT}:{script.parent}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(script), "full"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    check(found)
    assert found["edited"]["shape"] == [1, 3, 512, 512] and found["peak memory, GB"] < MOST_GB
    assert 20e6 < found["parameters of H"] < 60e6
