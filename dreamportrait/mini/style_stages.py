"""Stages of train.py that make the models of styled heads. Imports are deferred to the run.

They start from the mini/diffusion and the mini/eg3d of the package. The judges, clip-t and style-oracle, train and
select nothing.
"""

from collections.abc import Callable
from pathlib import Path

from dreamportrait.mini.places import Places


def world(places: Places, result: Path) -> None:
    """Render styled heads, and the triples of an editor."""
    for split in ("validation", "train"):
        places.styled_world(split)
        places.triples(split)


def clip(variant: str) -> Callable[[Places, Path], None]:
    def run(places: Places, result: Path) -> None:
        from dreamportrait.mini.styled_clip import train

        worlds = places.styled_world("train"), places.styled_world("validation")
        train(variant, result, places.state(f"clip-{variant}"), *worlds, device=places.device)

    return run


def oracle(places: Places, result: Path) -> None:
    from dreamportrait.mini import style_oracle

    worlds = places.styled_world("train"), places.styled_world("validation")
    style_oracle.train(result, places.state("style-oracle"), *worlds, device=places.device)


def vae(places: Places, result: Path) -> None:
    from dreamportrait.mini.diffusion.styled import tune_vae
    from dreamportrait.weights.registry import locate

    start, state = locate("mini/diffusion"), places.state("vae-styles")
    tune_vae(start, result, state, places.styled_world("train"), device=places.device)


def unet(places: Places, result: Path) -> None:
    from dreamportrait.mini.diffusion.styled import tune_unet
    from dreamportrait.weights.registry import locate

    parts = locate("mini/diffusion"), places.result("vae-styles"), places.result("clip-s")
    tune_unet(*parts, result, places.state("unet-styles"), places.styled_world("train"), device=places.device)


def ip2p(places: Places, result: Path) -> None:
    from dreamportrait.mini.ip2p import train
    from dreamportrait.weights.registry import locate

    parts = locate("mini/diffusion"), places.result("vae-styles"), places.result("clip-s")
    train(*parts, result, places.state("ip2p"), places.triples("train"), device=places.device)


def i2t(places: Places, result: Path) -> None:
    from dreamportrait.metrics import world_oracle
    from dreamportrait.mini.i2t import train
    from dreamportrait.weights.registry import locate

    oracle = world_oracle.load(locate("mini/oracle"))
    train(locate("mini/eg3d"), result, places.state("i2t-base"), oracle=oracle, device=places.device)


def i2t_any(places: Places, result: Path) -> None:
    from dreamportrait.mini.i2t_any import Parts, train_any

    parts = Parts(*(places.result(name) for name in ("i2t-base", "ip2p", "clip-s")))
    train_any(parts, result, places.state("i2t-any"), device=places.device)


def learnt_styles(places: Places, result: Path) -> None:
    from dreamportrait.mini.i2t_any import Parts
    from dreamportrait.mini.learnt_styles import learn_all

    parts = Parts(*(places.result(name) for name in ("i2t-base", "ip2p", "clip-s")))
    learn_all(parts, result, places.state("learnt-styles"), device=places.device)
