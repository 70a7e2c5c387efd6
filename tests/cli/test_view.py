"""Tests of `dreamportrait view`."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import util
from typing import Any

import pytest
from click.testing import CliRunner, Result
from places import ROOT

from dreamportrait.cli.view import view as command

pytest.importorskip("viser")

START = "import sys; from dreamportrait.cli.view import view; view(sys.argv[1:])"


def run(*words: str) -> Result:
    return CliRunner().invoke(command, words)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--host", "0.0.0.0"), 1, "--host 0.0.0.0: the viewer has no password"),
        (("--host", "0.0.0.0", "--port", "9000"), 1, "ssh -N -L 9000:127.0.0.1:9000"),
        (("--model", "nowhere"), 1, "no text-to-3D model 'nowhere'"),
        (("--port", "70000"), 2, "70000 is not in the range 0<=x<=65535"),
        (("--share",), 2, "No such option"),
    ],
)
def test_wrong_commands(words: tuple[str, ...], code: int, message: str) -> None:
    done = run(*words)
    assert done.exit_code == code and message in done.output and "Traceback" not in done.output, done.output


def test_without_viser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name == "viser" else real(name, *rest)

    monkeypatch.setattr(util, "find_spec", find)
    done = run()
    assert done.exit_code == 1 and "pip install 'dreamportrait[view]'" in done.output


def start(*words: str) -> subprocess.Popen[str]:
    """Start the viewer on a machine without a screen."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", START, "--port", "0", "--offline", "--device", "cpu", *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.lengthy
def test_with_json_the_address_is_all_that_it_prints() -> None:
    process = start("--json")
    try:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert found["model"] == "mini" and re.fullmatch(r"http://127\.0\.0\.1:\d+", found["address"])
    assert process.returncode == 0 and rest == "" and "the viewer has ended" in errors


@pytest.mark.lengthy
def test_it_starts_without_a_screen_and_ends_at_ctrl_c() -> None:
    process = start()
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "in a browser" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert address, said
        with urllib.request.urlopen(address[0]) as page:
            assert page.status == 200 and b"<html" in page.read()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=300)  # it ends within a second where nothing else runs
    finally:
        process.kill()
    assert process.returncode == 0 and "the viewer has ended" in rest, errors
    assert "Traceback" not in errors


def test_wrong_hosts_are_refused_before_pytorch_is_imported() -> None:
    code = """
import contextlib, io, sys
from dreamportrait.cli.view import view
with contextlib.redirect_stderr(io.StringIO()) as said:
    try:
        view(["--host", "0.0.0.0"])
    except SystemExit as end:
        assert end.code == 1
assert "no password" in said.getvalue() and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
