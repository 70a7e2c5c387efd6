"""The viewer as a process for benchmarks/viewer.py. Arguments: model, device."""

import sys


def main(model: str, device: str) -> None:
    from dreamportrait.core.allocator import keep_freed_memory
    from dreamportrait.core.machine import find_device
    from dreamportrait.pipeline import DreamPortraitPipeline
    from dreamportrait.viewer.server import Viewer

    keep_freed_memory()
    pipe = DreamPortraitPipeline.from_pretrained(model, device=find_device(device), offline=True)
    pipe.set_progress_bar_config(disable=True)
    with Viewer(pipe, port=0) as viewer:
        print("address", viewer.address, flush=True)
        viewer.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
