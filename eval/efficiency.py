"""Measure the time and memory from a prompt to its planes, to a first picture and to each further view.

\b
    python eval/efficiency.py --checkpoint mini
    python eval/efficiency.py --full-size --device cuda --precision float16

--full-size needs no weights: networks of the paper's sizes with random weights take the same time.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dreamportrait.core.errors import one_message

NAMES = ("efficiency.json", "efficiency.md")
# Figure 7: seconds from a prompt to its 3D representation, and GB, with the numbers from the text of section 4.2.
PAPER = (
    ("text to 3D by optimisation (paper)", "at least 1200", "at least 10"),
    ("DreamPortrait (paper, V100)", "about 1/15", "about 4.5"),
)


@click.command(help=__doc__)
@click.option("--checkpoint", help="mini, or a folder written by training.  [default: mini]")
@click.option("--full-size", is_flag=True, help="EG3D's FFHQ 512 and the text tower of ViT-H-14, with random weights.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: the GPU, if there is one.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the layers that tolerate less than float32.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help=f"The folder to write {' and '.join(NAMES)} to."
)
@click.option("--overwrite", is_flag=True, help="Replace these files if they exist.")
@click.option("--offline", is_flag=True, help="Never use the network.")
def main(
    checkpoint: str | None,
    full_size: bool,
    device: str | None,
    precision: str,
    repeats: int,
    out: Path | None,
    overwrite: bool,
    offline: bool,
) -> None:
    with one_message():
        if checkpoint is not None and full_size:
            raise ValueError(f"--checkpoint {checkpoint} and --full-size: these are two different models; choose one")
        if out is not None and not overwrite and (there := [name for name in NAMES if (out / name).exists()]):
            raise FileExistsError(f"--out {out}: holds {there[0]}; name another folder, or add --overwrite")

        from dreamportrait.core.allocator import keep_freed_memory
        from dreamportrait.core.files import write_text
        from dreamportrait.core.machine import find_device
        from dreamportrait.core.timing import check_memory

        device = find_device(device)
        check_memory(device)
        keep_freed_memory()
        source = "full size, random weights" if full_size else checkpoint or "mini"
        report = measure(source, full_size, device, precision, repeats, offline)
    text = markdown(report)
    click.echo(text)
    if out is not None:
        for name, content in zip(NAMES, (json.dumps(report, indent=1) + "\n", text), strict=True):
            write_text(out / name, content)
            click.echo(f"wrote {out / name}")


def measure(
    source: str, full_size: bool, device: str, precision: str, repeats: int, offline: bool = False
) -> dict[str, Any]:
    """Measure one model and return the report for efficiency.json."""
    from dreamportrait import __version__
    from dreamportrait.core.machine import git_state, machine
    from dreamportrait.systems.dreamportrait import efficiency
    from dreamportrait.systems.dreamportrait.full_size import full_size_encoder, full_size_portrait
    from dreamportrait.systems.dreamportrait.pipeline import DreamPortraitPipeline

    if full_size:
        encoder = full_size_encoder(device)
        generator = full_size_portrait(precision).to(device)
    else:
        pipe = DreamPortraitPipeline.from_pretrained(source, precision=precision, device=device, offline=offline)
        generator, encoder = pipe.generator, pipe.encoder
    about = machine(device)
    costs = efficiency.measure(generator, encoder, device, repeats)
    weights = {"text tower": efficiency.megabytes(encoder.tower.parts), "generator": efficiency.megabytes(generator)}
    c = generator.config
    return {
        "model": source,
        "sizes": {"image": c.image_resolution, "rendered": c.render_resolution, "samples": c.num_coarse + c.num_fine},
        "precision": precision,
        "prompt": efficiency.PROMPT,
        "repeats": repeats,
        "weights_mb": weights,
        "stages": [asdict(cost) for cost in costs],
        "seconds_to_planes": next(cost.seconds for cost in costs if cost.stage == efficiency.PLANES),
        "memory_mb": sum(weights.values()) + max(cost.peak_mb for cost in costs),
        "machine": about,
        "code": {"version": __version__, "commit": git_state().get("commit")},
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    about, sizes, weights = report["machine"], report["sizes"], report["weights_mb"]
    where = f"{about['name']}, {about['threads']} threads" if about["device"] == "cpu" else about["name"]
    lines = [
        f"# Efficiency: {report['model']}",
        "",
        f"{sizes['image']} x {sizes['image']}, rendered at {sizes['rendered']} with {sizes['samples']} samples a ray, "
        f"{report['precision']}, on {where}; one prompt at a time, median of {report['repeats']}.",
        "",
        "| stage | time | per second | fastest .. slowest | memory beyond the weights |",
        "|---|---|---|---|---|",
    ]
    for cost in report["stages"]:
        times = [f"{1000 * cost[name]:.4g}" for name in ("seconds", "fastest", "slowest")]
        speed, memory = f"{1 / cost['seconds']:.3g}", f"{cost['peak_mb']:.4g} MB"
        lines.append(f"| {cost['stage']} | {times[0]} ms | {speed} | {times[1]} .. {times[2]} ms | {memory} |")
    here = (f"this run ({where})", f"{report['seconds_to_planes']:.3g}", f"{report['memory_mb'] / 1000:.3g}")
    lines += [
        "",
        f"Weights: text tower {weights['text tower']:.4g} MB, generator {weights['generator']:.4g} MB.",
        "",
        "| figure 7 | prompt to 3D representation, s | memory, GB |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in (*PAPER, here)),
        "",
        "Memory of this run: the weights and the largest peak of any stage, without the rest of the process.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
