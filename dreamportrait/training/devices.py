"""How many processes a run has, on which devices, and whether that fits the configuration. Nothing is loaded for it.

torchrun or another launcher (tools/launch/) starts all processes of a run with several machines and says in variables
which one each is. Without a launcher, Lightning starts those of one machine.
"""

import os

import torch

from dreamportrait.core.config import RunConfig
from dreamportrait.core.settings import Problem


def count_processes(config: RunConfig) -> int:
    """Return the number of processes on all machines: those of torchrun, or those that Lightning will start."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return count_devices(config) * config.trainer.nodes


def count_devices(config: RunConfig) -> int:
    """Return the number of processes on this machine."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if config.trainer.devices != "auto":
        return config.trainer.devices
    return max(1, torch.cuda.device_count()) if on_gpu(config) else 1


def on_gpu(config: RunConfig) -> bool:
    wanted = config.trainer.accelerator
    return wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available())


def check_devices(config: RunConfig) -> None:
    """Raise ValueError if this machine lacks the devices or the precision of a configuration."""
    if not on_gpu(config):
        return
    found, wanted = torch.cuda.device_count(), count_devices(config)
    if not found:
        raise ValueError("PyTorch sees no GPU here, and trainer.accelerator is gpu; choose auto or cpu")
    if wanted > found:
        raise ValueError(f"{wanted} processes for {found} GPUs; set trainer.devices={found}, or make more GPUs visible")
    asked = "bfloat16" in (config.trainer.precision, config.guidance.precision)
    if asked and torch.cuda.get_device_capability() < (8, 0):
        raise ValueError(f"{torch.cuda.get_device_name()} has no bfloat16; choose float16, also for guidance.precision")


def own_device(config: RunConfig) -> torch.device:
    """Return the device of this process."""
    number = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0)))
    return torch.device("cuda", number) if on_gpu(config) else torch.device("cpu")


def launch_problems(config: RunConfig) -> list[Problem]:
    """Return a problem for everything that the launcher's variables and the configuration say differently."""
    found, nodes = [], config.trainer.nodes
    if "RANK" not in os.environ:
        if nodes > 1:
            text = f"{nodes} machines need a launcher that starts their processes: torchrun, or a file of tools/launch/"
            found.append(Problem(("trainer.nodes",), f"{text}; see docs/clusters.md"))
        return found
    processes, here = count_processes(config), count_devices(config)
    if processes % here:
        text = f"{processes} processes and {here} on this machine; every machine must start as many"
        found.append(Problem(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), text))
    elif nodes not in (1, processes // here):
        text = (
            f"{nodes}, and the launcher started {processes} processes, {here} on each of {processes // here} machines"
        )
        found.append(Problem(("trainer.nodes",), f"{text}; start as many machines, or set trainer.nodes accordingly"))
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        text = "without it, processes that are started again read the addresses of those that have ended, and fail; set"
        text += " it to 1 on every machine where torchrun --max-restarts is called"
        found.append(Problem(("TORCH_DISABLE_SHARE_RDZV_TCP_STORE",), text))
    return found
