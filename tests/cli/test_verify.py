"""Tests of `dreamportrait verify`."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result
from marked_files import CLAIM, page, picture, saved
from places import ROOT

from dreamportrait.cli.verify import verify as command
from dreamportrait.export.provenance import (
    Claim,
    mark,
)
from dreamportrait.export.sheets import save_picture


def run(*words: object) -> Result:
    return CliRunner().invoke(command, [*map(str, words)])


def test_exit_codes(tmp_path: Path) -> None:
    path = tmp_path / "head.png"
    save_picture(picture(), path, claim=CLAIM)
    done = run(path)
    assert done.exit_code == 0 and "made by AI" in done.output and "'DreamPortrait'" in done.output
    assert "none: anyone may have written this statement" in done.output
    facts = json.loads(run(path, "--json").output)
    assert facts["claim"] == CLAIM.to_dict() and facts["places"] == ["XMP"] and facts["signer"] is None

    save_picture(picture(), path, overwrite=True)
    assert run(path).exit_code == 1 and "does not mean that no AI was used" in run(path).output
    assert run(path, "--json").exit_code == 1 and json.loads(run(path, "--json").output)["claim"] is None

    path.write_bytes(path.read_bytes()[:-9])
    done = run(path)
    assert done.exit_code == 2 and "is cut off or damaged" in done.output and "Traceback" not in done.output
    assert run(path, "--json").exit_code == 2 and "cut off" in json.loads(run(path, "--json").output)["error"]
    assert run(tmp_path / "none").exit_code == 2


def test_a_page(tmp_path: Path) -> None:
    path = tmp_path / "head.html"
    path.write_bytes(page(CLAIM.extras()))
    done = run(path)
    assert done.exit_code == 0 and "script#provenance" in done.output and CLAIM.model_sha256 in done.output
    path.write_bytes(path.read_bytes()[:-30])
    done = run(path)
    assert done.exit_code == 2 and "head.html: it is cut off or damaged" in done.output


def test_texts_of_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "head.png").write_bytes(mark(saved("png"), Claim(model="\x9b2J\u202e\nsignature by you")))
    shown = run(tmp_path / "head.png").output
    assert "\x9b" not in shown and "\u202e" not in shown and "\nsignature by you" not in shown


def test_it_starts_at_once() -> None:
    code = "import sys; from dreamportrait.cli import verify; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "av", "c2pa"} & set(done.stdout.split())
