"""The command `dreamportrait train` as a script, for torchrun and other launchers."""

from dreamportrait.cli.training import train as main

if __name__ == "__main__":
    main()
