"""Which process of a run this one is, from the variables of its launcher. PyTorch is not needed for it."""

import os


def is_first_process() -> bool:
    """Return whether this is the first process of all machines.

    It reads the environment variables of torchrun, SLURM and Lightning, so it works before the process group exists.
    """
    names = ("RANK",) if "RANK" in os.environ else ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(name, 0)) == 0 for name in names)


def is_child() -> bool:
    """Return whether the trainer in another process of this run started this one. torchrun and SLURM set more."""
    launchers = ("RANK", "SLURM_PROCID")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not any(name in os.environ for name in launchers)
