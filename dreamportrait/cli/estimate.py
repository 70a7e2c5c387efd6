"""The command `estimate`: what a training costs, before it is started."""

import json
from pathlib import Path

import click

from dreamportrait.core.errors import one_message

GPUS, SIZES = ("v100", "a100"), ("16", "24", "32", "40", "80")


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="A YAML file; see configs/.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting, as in `train`.")
@click.option("--gpu", type=click.Choice(GPUS), default="v100", show_default=True, help="Whose recorded pace to use.")
@click.option("--memory", type=click.Choice(SIZES), help="GB of a GPU: choose precision and parts of the batch for it.")
@click.option(
    "--probe", type=click.IntRange(0, 1000), default=0, metavar="N", help="Measure here: N steps of each kind."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the numbers as JSON, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON in place of a page.")
def estimate(
    path: Path,
    overrides: tuple[str, ...],
    gpu: str,
    memory: str | None,
    probe: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what a training needs: memory of each GPU by part, hours and GPU-hours of each stage, disk space.

    \b
    Examples:
        dreamportrait estimate --config configs/dreamportrait/celebatext_hq.yaml
        dreamportrait estimate --config configs/dreamportrait/celebatext_hq.yaml --memory 24 --gpu a100
        dreamportrait estimate --config configs/dreamportrait/mini.yaml --probe 3

    No weights are needed: what is not on this machine is taken at its published size. Shapes of one step are computed
    without storage, which takes a minute or two at full size.
    """
    with one_message():
        from dreamportrait.core.files import write_text
        from dreamportrait.systems.dreamportrait.config import load_config
        from dreamportrait.systems.dreamportrait.cost import bill as bills
        from dreamportrait.systems.dreamportrait.cost.page import page
        from dreamportrait.training.devices import count_processes

        config = load_config(path, overrides)
        processes = count_processes(config)
        if memory is not None:
            config = bills.with_preset(config, int(memory), processes)
            click.echo(f"for {memory} GB: {' '.join(bills.settings(config))}\n", err=as_json)
        bill = bills.estimate(config, processes, gpu, probe)
        numbers = json.dumps(bills.to_dict(bill), indent=1, allow_nan=False)
        click.echo(numbers if as_json else page(bill))
        if out is not None:
            write_text(out, numbers + "\n")
