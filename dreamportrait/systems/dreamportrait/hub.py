"""Models on the Hugging Face hub: which names mean one, the files that are fetched, and the model card that is pushed.

Only configuration and weights are fetched and verified. The rest of a repository (its card, which people edit there,
.gitattributes) is ignored.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamportrait.core.errors import WeightsError, first_line, shown

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

CARD = "README.md"
LIBRARY, PAPER = "dreamportrait", "https://arxiv.org/abs/2306.02083"
USE = """\
Portraits are made by a model and show no real person. Do not use the model to imitate a real person without consent,
or to pass its pictures off as photographs. Exported files say in their metadata that they were made by AI.
`--no-provenance` on the command line and `provenance=False` in Python turn that off for one export."""
# Licences of weights that the hub knows, by the names that folders use. Others are named on the card.
KNOWN_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC-BY-4.0": "cc-by-4.0", "CC0-1.0": "cc0-1.0"}

_OWNER_AND_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str | Path) -> bool:
    """Return whether a name means a repository of the hub: owner/name, and no folder of that name is here."""
    return isinstance(source, str) and bool(_OWNER_AND_NAME.fullmatch(source)) and not Path(source).exists()


@contextmanager
def fetched(
    repository: str,
    files: tuple[str, ...],  # names of the files that are fetched if they are there; the last one is the seal
    *,
    revision: str | None = None,  # branch, tag or commit. None = the newest
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,  # from the hub's cache only
) -> Iterator[Path]:
    """Yield a temporary folder with files of a repository, in the form in which training writes it."""
    from huggingface_hub import snapshot_download

    where = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": offline}
    settings: dict[str, Any] = {**where, "allow_patterns": list(files)}
    try:
        snapshot = Path(snapshot_download(repository, **settings))
    except (OSError, ValueError) as error:  # base classes of the hub's errors
        why = "its cache does not have it, and nothing may be fetched (offline)" if offline else first_line(error)
        raise WeightsError(
            f"no text-to-3D model {shown(repository)}: it is neither 'mini' nor a folder, and the hub gives none: {why}"
        ) from None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for file in files[:-1]:
            if (snapshot / file).is_file():
                _link(snapshot / file, folder / file)
        _write_seal(snapshot / files[-1], folder / files[-1], files)
        try:
            yield folder
        except WeightsError as error:  # names the model, not the temporary folder
            raise WeightsError(str(error).replace(name, repository)) from None


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # Windows lets few users make links
        shutil.copy(source, target)


def _write_seal(source: Path, target: Path, files: tuple[str, ...]) -> None:
    """Write the seal without the files that were not fetched. A damaged seal is copied and refused by its reader."""
    if not source.is_file():
        return
    text = source.read_text(encoding="utf-8", errors="replace")
    try:
        values = json.loads(text)
        values["files"] = {name: each for name, each in values["files"].items() if name in files}
        text = json.dumps(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    target.write_text(text, encoding="utf-8")


def card_data(licence: str) -> "ModelCardData":
    """Return the metadata of a model card, which the hub shows and searches."""
    from huggingface_hub import ModelCardData

    known = KNOWN_LICENCES.get(licence)
    named: dict[str, Any] = {"license": known} if known else {"license": "other", "license_name": licence}
    tags = ["3d", "portrait", "eg3d", "gan", "model_hub_mixin"]
    return ModelCardData(language="en", library_name=LIBRARY, pipeline_tag="text-to-3d", tags=tags, **named)


def card_text(name: str, facts: list[tuple[str, str]], licence: str) -> str:
    """Return the text of a model card below its metadata."""
    table = "\n".join(f"| {fact} | {value} |" for fact, value in facts)
    return f"""# {name}

Text to 3D heads in one forward pass, with [DreamPortrait]({PAPER}): a tri-plane generator (EG3D) that follows text.

| | |
|---|---|
{table}

```python
from dreamportrait import DreamPortraitPipeline

pipe = DreamPortraitPipeline.from_pretrained("{name}")
pipe("a woman with red hair", seed=3, num_views=5).save_sheet("portrait.png")
```

## Licence and use

The weights have this licence: {licence}. It comes from the generator that the training started from and from the
training data; the code is Apache-2.0.

{USE}
"""
