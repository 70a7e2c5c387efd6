"""Find the text-to-3D model or checkpoint that a user names. Only paths are checked, so no heavy import is needed."""

from pathlib import Path

from dreamportrait.core.errors import WeightsError, shown
from dreamportrait.training.run_folder import CONFIG, RESULT
from dreamportrait.weights.registry import shipped_folder

MINI = "mini"  # the model that comes with the package


def locate_portrait(source: str | Path) -> Path:
    """Return the folder of a text-to-3D model: "mini", a folder written by save_pretrained, or the folder of a run."""
    if source == MINI:
        folder = shipped_folder("mini/portrait")
        if not folder.is_dir():
            raise WeightsError(
                f"the weights of the text-to-3D model 'mini' are not in this installation: no folder {folder}; "
                "install dreamportrait again, or train it: `dreamportrait train --config "
                "configs/dreamportrait/mini.yaml`"
            )
        return folder
    if not Path(source).is_dir():
        raise WeightsError(f"no text-to-3D model {shown(str(source))}: it is neither 'mini' nor a folder")
    return _result_of(Path(source)) if (Path(source) / CONFIG).is_file() else Path(source)


def _result_of(run: Path) -> Path:
    """Return the folder of the result in a run's folder."""
    if not (run / RESULT).is_dir():
        raise WeightsError(
            f"{run} is the folder of a run that has no result yet; continue its training. `dreamportrait evaluate` "
            "also measures its checkpoints"
        )
    return run / RESULT


def check_checkpoint(source: str) -> None:
    """Raise WeightsError unless `source` is "mini", a folder or a file."""
    if source != MINI and not Path(source).exists():
        raise WeightsError(
            f"checkpoint {source} is not there; name mini, a folder that save_pretrained or training wrote, a run's "
            "folder or a checkpoint in it"
        )
