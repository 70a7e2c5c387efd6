"""The command `dreamportrait train` as a script, for torchrun and other launchers."""

from dreamportrait.cli.training import train as main
from dreamportrait.core.allocator import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()
    main()
