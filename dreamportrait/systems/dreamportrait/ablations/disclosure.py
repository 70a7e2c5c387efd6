"""What the base row of an ablation study does otherwise than the paper, from the settings that it was trained with."""

from collections.abc import Mapping
from typing import Any

from dreamportrait.metrics.report import table


def differences(s: Mapping[str, Any]) -> str:
    """Return a table: the paper, and the whole method as these settings have it."""
    stages = [(s[f"stages.{i}.name"], s[f"stages.{i}.images"]) for i in range(9) if f"stages.{i}.images" in s]
    lines = [
        ["start", "EG3D, FFHQ", f"`{s['model.pretrained']}`"],
        ["text encoder", "CLIP, penultimate layer", f"`{s['text.clip']}`, the same layer"],
        ["diffusion model", "Stable Diffusion 2.0-base", f"`{s['guidance.source']}`"],
        ["images", "500,000, then 1,000,000", ", then ".join(f"{images:,} ({name})" for name, images in stages)],
        ["batch", "32", str(s["data.batch"])],
        ["semantics mapper", "two layers on text, two on style, one that fuses them", _mapper(s)],
        ["identity", "no loss", _keep(s)],
        ["discriminator", "its input is not stated", _critic(s)],
        ["strength of the guidance", "not stated", _strength(s)],
        [
            "guidance scale, range of t, w(t)",
            "not stated",
            f"{s['guidance.scale']:g}, {s['guidance.t_min']:g} to {s['guidance.t_max']:g}, `{s['guidance.weight']}`",
        ],
        ["rescaling of both noises", "done, no formula", f"by {s['guidance.rescale']:g} of the way to unit variance"],
        ["R1", "as EG3D (its weight depends on the data)", f"{s['loss.r1_gamma']:g}"],
        [
            "learning rates",
            "as EG3D: 0.0025 and 0.002",
            f"generator {s['optim.lr_generator']:g}, discriminator {s['optim.lr_discriminator']:g}, mapper "
            f"{s['optim.lr_mapper']:g}, adapters {s['optim.lr_adapters']:g}",
        ],
    ]
    return table(["", "paper", "here, in every row"], lines)


def _mapper(s: Mapping[str, Any]) -> str:
    if s["model.conditioning.plain_mapper"]:
        return "the same; its output replaces w, and equals w at the start"
    if s["model.conditioning.mapper_blocks"]:
        return "residual blocks; the output is an offset of w, in w's standard deviations"
    return "the same layers, and products of text and style; the output is an offset of w, in w's standard deviations"


def _keep(s: Mapping[str, Any]) -> str:
    weight = s["loss.keep_weight"]
    return f"squared offset of w, weight {weight:g}" if weight else "no loss"


def _critic(s: Mapping[str, Any]) -> str:
    return (
        "reads the prompt by a projection, and rejects pictures with other prompts"
        if (s["loss.text_aware_discriminator"])
        else "pictures and cameras"
    )


def _strength(s: Mapping[str, Any]) -> str:
    ratio = s.get("loss.guidance_ratio")
    weights = f"weight {s['loss.guidance_weight']:g}, adversarial loss {s['loss.gan_weight']:g}"
    return weights if ratio is None else f"{ratio:g} times the adversarial gradient at the picture"
