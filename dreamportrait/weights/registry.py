"""Models by name, and the seal that tells whether a folder of weights is whole.

    from_pretrained("mini/clip-a")      open_clip's model and tokenizer; conditions generators
    from_pretrained("mini/clip-b")      the same; the judge
    from_pretrained("mini/diffusion")   UNet, VAE and noise schedule of diffusers
    from_pretrained("mini/eg3d")        generator and discriminator
    from_pretrained("mini/oracle")      reads attributes from pictures

The miniature world's weights lie in the package; for them nothing is ever asked of a network. A sealed folder has a
files.json with the size and SHA-256 of every other file in it, at any depth.
"""

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from dreamportrait.generator.discriminator import DualDiscriminator
from dreamportrait.generator.triplane import TriPlaneGenerator
from dreamportrait.weights.errors import WeightsError, listed, shown

MINI = ("clip-a", "clip-b", "diffusion", "eg3d", "oracle")
NAMES = tuple(f"mini/{name}" for name in MINI)
SEAL, FORMAT_VERSION = "files.json", 1
REMEDY = "install dreamportrait again, or train them with `make mini-weights` and copy them there"


class TriPlaneGan(NamedTuple):
    generator: TriPlaneGenerator
    discriminator: DualDiscriminator


def from_pretrained(name: str) -> Any:
    """The model of that name, in eval mode, on the CPU: what the loader below returns."""
    return _load(name, locate(name))


def locate(name: str) -> Path:
    """The verified folder of a model."""
    if name not in NAMES:
        raise _unknown(name)
    folder = Path(str(resources.files("dreamportrait.mini"))) / "weights" / name.removeprefix("mini/")
    if not folder.is_dir():
        raise WeightsError(f"the weights of {name} are not in this installation: no folder {folder}; {REMEDY}")
    verify(folder)
    return folder


def _load(name: str, folder: Path) -> Any:
    if name in ("mini/clip-a", "mini/clip-b"):
        from dreamportrait.mini import clip

        return clip.load(folder), clip.tokenizer()
    if name == "mini/diffusion":
        from dreamportrait.mini.diffusion.folder import load_diffusion

        return load_diffusion(folder)
    if name == "mini/eg3d":
        from dreamportrait.weights.store import load_discriminator, load_generator

        return TriPlaneGan(load_generator(folder), load_discriminator(folder))
    if name == "mini/oracle":
        from dreamportrait.mini import oracle

        return oracle.load(folder)
    raise _unknown(name)


def _unknown(name: str) -> WeightsError:
    return WeightsError(f"unknown model {shown(name)}; known are {', '.join(NAMES)}")


def seal(folder: Path) -> None:
    """Writes files.json, after the last change to the folder."""
    files = _files(folder)
    if not files:
        raise WeightsError(f"{folder} holds no files, nothing to seal; name the folder the weights were written to")
    text = json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=2) + "\n"
    unfinished = folder.with_name(f".{folder.name}.{SEAL}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / SEAL)


def verify(folder: Path) -> None:
    """Raises with everything that is not as it was sealed."""
    known, found = _read_seal(folder / SEAL), _files(folder)
    problems = {
        "missing": [shown(name) for name in known if name not in found],
        "changed": [shown(name) for name in known if name in found and known[name] != found[name]],
        f"not in {SEAL}": [shown(name) for name in found if name not in known],
    }
    if wrong := [f"{kind}: {listed(names)}" for kind, names in problems.items() if names]:
        raise WeightsError(f"{folder} is not as it was sealed; {'; '.join(wrong)}. If you did not change it, {REMEDY}")


def _read_seal(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not there, so the weights beside it cannot be checked; {REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}; {REMEDY}") from None
    if isinstance(values, dict) and isinstance(files := values.get("files"), dict):
        if (version := values.get("format_version")) == FORMAT_VERSION:
            return files
        raise WeightsError(f"{path}: format_version {version!r}; this version of dreamportrait reads {FORMAT_VERSION}")
    raise WeightsError(f"{path} has no object `files`; {REMEDY}")


def _files(folder: Path) -> dict[str, dict[str, int | str]]:
    """Name relative to the folder -> size and SHA-256, of all files but the seal."""
    found: dict[str, dict[str, int | str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / SEAL:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            found[path.relative_to(folder).as_posix()] = {"bytes": len(data), "sha256": sha256}
    return found
