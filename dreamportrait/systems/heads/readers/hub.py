"""Fetches GNM Head from the Hugging Face hub, once; later it is read from the hub's cache on this machine."""

from pathlib import Path

from dreamportrait.core.errors import WeightsError, first_line

GNM = "gnm"  # the name under which it is known
REPOSITORY, FILE = "google/gnm-v3", "v3_0/gnm_head.npz"  # 53 MB, Apache-2.0


def gnm_file(offline: bool = False) -> Path:
    """Return gnm_head.npz. offline: only use a copy on this machine."""
    from huggingface_hub import hf_hub_download

    tried = []
    for cached in (True,) if offline else (True, False):
        try:
            return Path(hf_hub_download(REPOSITORY, FILE, local_files_only=cached))
        except Exception as error:  # each version of the hub's client raises different exceptions
            tried.append(first_line(error))
    remedy = "run once online" if offline else "check the connection"
    raise WeightsError(
        f"GNM Head was not found: {REPOSITORY}/{FILE}: {tried[-1]}; {remedy}, or download gnm_head.npz yourself and "
        "run `dreamportrait convert gnm`"
    )
