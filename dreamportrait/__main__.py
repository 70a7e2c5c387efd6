"""Entry point of `python -m dreamportrait`."""

from dreamportrait.cli import main

main(prog_name="python -m dreamportrait")
