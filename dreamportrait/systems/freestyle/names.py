"""Finds free-style models and styles by the names that users give. Only paths are checked; nothing is loaded."""

from pathlib import Path

from dreamportrait.core.errors import WeightsError, shown
from dreamportrait.training.run_folder import CONFIG
from dreamportrait.weights import registry

MINI, BASE, INSTANT = "mini", "mini/i2t-base", "mini/i2t-any"
RESULT = "i2t"  # in the folder of a run
ABOUT = "adapter.json"  # a folder with this file is a style


def locate_model(source: str | Path) -> Path:
    """Return the folder of a free-style model: "mini", a folder that training wrote, or the folder of a run."""
    if source in (MINI, BASE, INSTANT):
        return _shipped(BASE if source == MINI else str(source))
    folder = Path(source)
    if not folder.is_dir():
        raise WeightsError(f"no free-style model {shown(str(source))}: it is neither 'mini' nor a folder")
    if not (folder / CONFIG).is_file():
        return folder
    if not (folder / RESULT).is_dir():
        raise WeightsError(f"{folder} is the folder of a run that has no result yet; continue its training")
    return folder / RESULT


def locate_instant(source: str | Path) -> Path | None:
    """Return the folder of the network for edited fronts of any style that comes with "mini", or None."""
    there = source == MINI and registry.shipped_folder(INSTANT).is_dir()
    return _shipped(INSTANT) if there else None


def _shipped(name: str) -> Path:
    folder = registry.shipped_folder(name)
    if not folder.is_dir():
        raise WeightsError(
            f"the free-style model {name!r} does not come with this version: no folder {folder}; name the folder of a "
            "trained one with --model, or train it: python -m dreamportrait.mini.train i2t-base --work WORK --out OUT"
        )
    return folder


def locate_style(source: str | Path) -> Path:
    """Return the folder of a style: a path, or the name of one that comes with the package."""
    folder = Path(source)
    if (folder / ABOUT).is_file():
        return folder
    if str(source) in (known := shipped_styles()):
        return known[str(source)]
    what = "a folder without adapter.json" if folder.is_dir() else "no folder"
    also = f", or name one of {', '.join(known)}" if known else ""
    raise WeightsError(
        f"no style {shown(str(source))}: it is {what}; `dreamportrait style learn` writes such folders{also}"
    )


def shipped_styles() -> dict[str, Path]:
    """Return the folders of the styles that come with the package, by name."""
    place = f"mini/{registry.LEARNT}"
    return {f"{place}/{folder.name}": folder for folder in styles_in(registry.shipped_folder(place))}


def styles_in(folder: Path) -> list[Path]:
    """Return the folders of styles in a folder."""
    return sorted(path.parent for path in folder.glob(f"*/{ABOUT}")) if folder.is_dir() else []
