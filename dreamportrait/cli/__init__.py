"""The command line `dreamportrait`. Only the commands that need PyTorch import it, so that help appears at once."""

import click

from dreamportrait import __version__
from dreamportrait.cli.data import data
from dreamportrait.cli.doctor import doctor
from dreamportrait.cli.estimate import estimate
from dreamportrait.cli.head_models import flame, gnm, ict_facekit
from dreamportrait.cli.heads import head
from dreamportrait.cli.invert import invert
from dreamportrait.cli.mesh import mesh
from dreamportrait.cli.mix import mix
from dreamportrait.cli.portraits import sample
from dreamportrait.cli.scores import evaluate
from dreamportrait.cli.splats import splats
from dreamportrait.cli.style import style
from dreamportrait.cli.training import train
from dreamportrait.cli.verify import verify
from dreamportrait.cli.video import video
from dreamportrait.cli.view import view
from dreamportrait.cli.weights import convert
from dreamportrait.core.allocator import keep_freed_memory


@click.group()
@click.version_option(__version__, prog_name="dreamportrait")
def main() -> None:
    """Text-to-3D portraits from a tri-plane GAN.

    \b
    Examples:
        dreamportrait sample "a woman with red hair"
        dreamportrait view --open
        dreamportrait mesh --help

    Exit codes: 0 = done, 1 = a value, a file or this machine is not as needed, 2 = the command is wrong. `verify` has
    its own.
    """
    keep_freed_memory()


for command in (
    data,
    sample,
    view,
    video,
    mesh,
    splats,
    mix,
    head,
    invert,
    style,
    verify,
    train,
    estimate,
    evaluate,
    convert,
    doctor,
):
    main.add_command(command)
for command in (flame, gnm, ict_facekit):
    convert.add_command(command)
