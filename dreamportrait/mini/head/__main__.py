"""Build the head model of the miniature world, compare it with the world's pictures, and write a sealed folder.

python -m dreamportrait.mini.head --out FOLDER
"""

import json
import time
from pathlib import Path
from typing import Any

import click

from dreamportrait import __version__
from dreamportrait.core.errors import one_message


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--overwrite", is_flag=True, help="Replace an existing folder.")
def main(out: Path, overwrite: bool) -> None:
    """Build mini/head in OUT. It takes about a minute, and gives the same numbers every time."""
    with one_message():
        from dreamportrait.core.files import check_free
        from dreamportrait.mini import cards
        from dreamportrait.mini.head.agreement import agreement
        from dreamportrait.mini.head.build import head_model
        from dreamportrait.mini.head.expressions import empty_names
        from dreamportrait.mini.train import hardware
        from dreamportrait.systems.heads.folder import FILES, describe, read_head_model, save_head_model
        from dreamportrait.weights.registry import HEAD

        check_free(out, overwrite, FILES)
        start = time.monotonic()
        model = head_model()
        stage = {
            "stage": HEAD,
            "command": "python -m dreamportrait.mini.head",
            "seconds": round(time.monotonic() - start),
            "hardware": hardware("cpu"),
            "code_version": __version__,
        }

        def finish(folder: Path) -> None:
            _write(folder / cards.TRAINING, {"stages": [stage]})
            _write(folder / cards.SCORES, agreement(read_head_model(folder)))
            cards.write(folder, HEAD)

        notes = {"expressions that move nothing": list(empty_names())}
        save_head_model(model, out, notes=notes, half=True, overwrite=overwrite, finish=finish)
        print(f"{out}: {describe(model)}")


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
