"""Tests that the notebooks run unchanged."""

from pathlib import Path

import nbclient
import nbformat
import pytest
from places import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_there_is_one() -> None:
    assert [path.name for path in NOTEBOOKS] == ["sample.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_stored_with_its_pictures_and_nothing_of_the_machine(path: Path) -> None:
    """`make notebook` stores it. A reader of the file sees what each cell gives."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/jpeg" in output.data for output in outputs) == 6
    assert sum("image/gif" in output.data for output in outputs) == 1
    assert all(output.output_type == "execute_result" for output in outputs)  # no errors, no logs with paths
    assert not any("execution" in cell.metadata for cell in cells)
    assert path.stat().st_size < 1_000_000


@pytest.mark.lengthy
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "sample.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type != "stream"]  # without the logs of libraries
    kinds = [next((kind for kind in data if kind.startswith("image/")), None) for data in shown]
    still, moving = "image/png", "image/gif"
    assert kinds == [still, None, still, still, still, moving, still, still, None]
    assert shown[1]["text/plain"] == "((5, 64, 64, 3), torch.Size([5, 3, 64, 64]), torch.Size([5, 1, 64, 64]))"
