"""Measure how much of D-SDS pulls pictures to the mean of the generator's own pictures: rho(t) of docs/guidance.md.

\b
    python eval/rho.py --checkpoint mini
    python eval/rho.py --checkpoint runs/x/checkpoints/images-000000640.ckpt --steps 1000 --out rho.json

The generator is frozen, and a fake score is fitted to its latents. rho far below 1 at every t: kind=dmd cannot help.
"""

import json
from pathlib import Path

import click

from dreamportrait.core.config import Fake
from dreamportrait.core.errors import one_message


@click.command(help=__doc__)
@click.option("--checkpoint", required=True, metavar="SOURCE", help="As for `dreamportrait evaluate`.")
@click.option("--guidance", default="mini/diffusion", show_default=True, help="As guidance.source.")
@click.option("--dataset", default="miniworld:validation", show_default=True, help="Source of captions and cameras.")
@click.option("--steps", type=click.IntRange(min=1), default=500, show_default=True, help="Updates of the fake score.")
@click.option("--latents", type=click.IntRange(min=1), default=1024, show_default=True, help="Latents to learn from.")
@click.option("--held", type=click.IntRange(min=1), default=256, show_default=True, help="Latents to measure rho on.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=Fake().lr, show_default=True)
@click.option("--lora-rank", type=click.IntRange(min=1), help="Train LoRA.  [default: a copy of the UNet]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("rho.json"), show_default=True)
def main(
    checkpoint: str,
    guidance: str,
    dataset: str,
    steps: int,
    latents: int,
    held: int,
    batch: int,
    lr: float,
    lora_rank: int | None,
    seed: int,
    device: str,
    out: Path,
) -> None:
    with one_message():
        from dreamportrait.core.files import write_text
        from dreamportrait.core.machine import find_device
        from dreamportrait.systems.dreamportrait.rho import Request, measure

        request = Request(checkpoint, guidance, dataset, latents, held, steps, batch, lr, lora_rank, seed)
        found = measure(request, find_device(device))
        write_text(out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    click.echo(f"{'t':>5} {'rho':>8} {'|eps_psi - eps|^2':>18} {'|eps_c - eps_psi|^2':>20} {'|eps_c - eps|^2':>16}")
    for row in found["rho"]:
        click.echo(f"{row['t']:5d} {row['rho']:8.3f} {row['pull']:18.4f} {row['gap']:20.4f} {row['teacher']:16.4f}")
    for name in ("fake_loss_ratio", "text_sensitivity"):
        click.echo(f"{name}: {found['before'][name]:.3f} before the fit, {found['after'][name]:.3f} after it")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
