"""Which checkpoints a run continues from.

A fake score and a critic of pairs may be missing there, and begin anew; or may be there without being needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.training.continuing import check_file, check_fits

OPTIONAL = ("fake_score", "pair_critic")  # parts of the module, and their optimisers


def check_checkpoint(path: Path, module: nn.Module, optimizers: Sequence[Optimizer], config: Config) -> None:
    """Raise ValueError unless the module can continue from a checkpoint. Its tensors are mapped, not read."""
    check_file(path, lambda checkpoint: fitted(checkpoint, module, optimizers, config))


def fitted(
    checkpoint: Mapping[str, Any], module: nn.Module, optimizers: Sequence[Optimizer], config: Config
) -> dict[str, Any]:
    """Return the checkpoint with what the module needs of it. Raise ValueError if it is of another training."""
    found = _adopted(checkpoint, module, config)
    check_fits(found, module, optimizers, config.data.batch)
    return found


def _adopted(checkpoint: Mapping[str, Any], module: nn.Module, config: Config) -> dict[str, Any]:
    """Let a run with an optional part begin from a checkpoint without it, and the other way round."""
    state, own = dict(checkpoint["state_dict"]), module.state_dict()
    gone = {"discriminator"} if config.model.freeze_discriminator else set()
    for part in OPTIONAL:
        mine = {name: value for name, value in own.items() if name.startswith(f"{part}.")}
        found = [name for name in state if name.startswith(f"{part}.")]
        if not mine:
            gone.add(part)
            state = {name: value for name, value in state.items() if name not in found}
        elif not found:
            state.update(mine)  # Lightning leaves the last optimisers, which have no saved state, as they are
    optimizers = [each for each in checkpoint["optimizer_states"] if each["param_groups"][0]["name"] not in gone]
    return {**checkpoint, "state_dict": state, "optimizer_states": optimizers}
