"""Finds the folders of the models that come with the package, by name.

    locate("mini/clip-a")      the CLIP that conditions generators
    locate("mini/clip-b")      the CLIP that scores results
    locate("mini/diffusion")   UNet, VAE and noise schedule of diffusers
    locate("mini/eg3d")        generator and discriminator
    locate("mini/head")        morphable head
    locate("mini/oracle")      classifier of attributes in pictures
    locate("mini/splats")      corrections of Gaussian splats
    locate("mini/clip-s")      and the other models of styled heads, see STYLES

This module only finds and verifies folders. The package that owns a kind of model loads it; mini.from_pretrained
loads any of them by name.
"""

from importlib import resources
from pathlib import Path

from dreamportrait.core.errors import WeightsError, shown
from dreamportrait.weights.seals import REMEDY, verify

MINI = ("clip-a", "clip-b", "diffusion", "eg3d", "oracle")  # trained together, by `make mini-weights`
# Models of styled heads, trained together, by `make mini-styles`.
STYLES: tuple[str, ...] = ("clip-s", "i2t-any", "i2t-base", "ip2p", "style-oracle")
LEARNT = "styles"  # adapters of styles that were learnt with them; names.py of the free-style system finds them
SPLATS = "splats"  # trained for a text-to-3D model, by `make mini-splats`
HEAD = "head"  # built from the solids of the miniature world, by `make mini-head`
_TARGETS = {SPLATS: SPLATS, HEAD: HEAD} | dict.fromkeys(STYLES, "styles")  # of the Makefile, after "mini-"
_REMEDIES = {f"mini/{name}": f"install dreamportrait again, or run `make mini-{t}`" for name, t in _TARGETS.items()}
NAMES = tuple(f"mini/{name}" for name in (*MINI, *STYLES, SPLATS, HEAD))


def locate(name: str) -> Path:
    """Return the folder of a model, after checking that it is complete."""
    if name not in NAMES:
        raise WeightsError(f"unknown model {shown(name)}; known are {', '.join(NAMES)}")
    folder = shipped_folder(name)
    if not folder.is_dir():
        raise WeightsError(f"the weights of {name} are not in this installation: no folder {folder}; {REMEDY}")
    verify(folder, _REMEDIES.get(name, REMEDY))
    return folder


def shipped_folder(name: str) -> Path:
    """Return the folder in the package for the weights named "mini/..."."""
    return Path(str(resources.files("dreamportrait"))) / "mini" / "weights" / name.removeprefix("mini/")
