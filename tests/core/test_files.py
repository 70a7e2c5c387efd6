"""Tests of written files: their permissions, and a full disk."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from full_disk import largest_file

from dreamportrait.core.files import read_text, replacing, write_text
from dreamportrait.training.states import save_state
from dreamportrait.weights.folder import write_tensors


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_weights_have_the_permissions_that_the_umask_allows(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "weights.safetensors", {"x": torch.zeros(2)})
        assert os.umask(mask) == mask  # reading it did not change it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o666 & ~mask


# Reading and writing.


def test_text_is_read_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\u00e9" * 5)
    assert read_text(tmp_path / "a", 10) == "\u00e9" * 5
    for path in (tmp_path / "a", Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path} has more than 9 bytes"):
            read_text(path, 9)


@pytest.mark.parametrize("write", [write_text, lambda path, text: save_state(path, {"text": text})])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    path = tmp_path / "file"
    write(path, "before")
    content = path.read_bytes()
    with largest_file(50_000), pytest.raises(OSError, match=r"too large, so this is not written: .*file'"):
        write(path, "x" * 100_000)
    assert path.read_bytes() == content and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(FileNotFoundError, match=f"so this is not written: '{path}'"), replacing(path):
        pass  # the temporary file is never made
