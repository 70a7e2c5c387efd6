"""The command line `dreamportrait`. Only the commands that need PyTorch import it, so that help appears at once."""

import click

from dreamportrait import __version__
from dreamportrait.cli.portraits import sample
from dreamportrait.cli.scores import evaluate
from dreamportrait.cli.training import train
from dreamportrait.cli.weights import convert


@click.group()
@click.version_option(__version__, prog_name="dreamportrait")
def main() -> None:
    """Text-to-3D portraits from a tri-plane GAN."""


for command in (sample, train, evaluate, convert):
    main.add_command(command)
