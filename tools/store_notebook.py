"""Runs the notebooks and stores them with the pictures that they show (make notebook)."""

from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent.parent / "notebooks"


def main() -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": FOLDER}}).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # the times of the run
            if cell.cell_type == "code":
                cell.outputs = [kept(output) for output in cell.outputs if output.output_type != "stream"]
        nbformat.write(notebook, path)
        print(f"{path} ({path.stat().st_size // 1000} kB)")


def kept(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop the PNG of a picture that is there as JPEG too: five times as large."""
    if "image/jpeg" in output.data:
        output.data.pop("image/png", None)
    return output


if __name__ == "__main__":
    main()
