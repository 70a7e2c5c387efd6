"""Builds the networks of this package from the constructor arguments stored in official EG3D snapshots."""

from typing import Any

from dreamportrait.eg3d.config import GeneratorConfig
from dreamportrait.eg3d.discriminator import DiscriminatorConfig, DualDiscriminator
from dreamportrait.eg3d.superresolution import SPECS
from dreamportrait.eg3d.triplane import TriPlaneGenerator

# Constructor arguments of the official networks. The first set is required. The second set is also accepted: these
# have a default, concern training, or are never read. Any other argument is a mistake or is from another program.
_GENERATOR = (
    {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "rendering_kwargs"},
    {"mapping_kwargs", "sr_kwargs", "channel_base", "channel_max", "num_fp16_res", "sr_num_fp16_res", "conv_clamp"}
    | {"fused_modconv_default"},
)
_RENDERING = (
    {"superresolution_module", "clamp_mode", "c_gen_conditioning_zero", "superresolution_noise_mode", "sr_antialias"}
    | {"depth_resolution", "depth_resolution_importance", "ray_start", "ray_end", "box_warp"}
    | {"disparity_space_sampling"},
    {"image_resolution", "c_scale", "gpc_reg_prob", "density_reg", "density_reg_p_dist", "reg_type", "decoder_lr_mul"}
    | {"white_back", "avg_camera_radius", "avg_camera_pivot", "density_noise"},
)
_DISCRIMINATOR = (
    {"c_dim", "img_resolution", "img_channels"},
    {"channel_base", "channel_max", "num_fp16_res", "conv_clamp", "disc_c_noise", "block_kwargs", "mapping_kwargs"}
    | {"epilogue_kwargs", "architecture", "cmap_dim"},
)


def generator_config_from_official(init_kwargs: dict[str, Any], precision: str = "float32") -> GeneratorConfig:
    """Return the configuration of the generator that was built with these arguments."""
    k = _checked("generator", init_kwargs, *_GENERATOR)
    r = _checked("rendering_kwargs", k["rendering_kwargs"], *_RENDERING)
    mapping = _checked("mapping_kwargs", k.get("mapping_kwargs", {}), set(), {"num_layers"})
    kind = str(r["superresolution_module"]).rpartition("SuperresolutionHybrid")[2]
    if kind not in SPECS:
        raise ValueError(
            f"superresolution_module={r['superresolution_module']!r}: must end in one of {', '.join(SPECS)}"
        )
    _demand("clamp_mode", r["clamp_mode"], "softplus")
    _demand("img_channels", k["img_channels"], 3)
    _demand("img_resolution", k["img_resolution"], SPECS[kind].resolutions[1])
    _demand("density_noise", r.get("density_noise", 0), 0)
    return GeneratorConfig(
        z_dim=k["z_dim"],
        c_dim=k["c_dim"],
        w_dim=k["w_dim"],
        mapping_layers=mapping.get("num_layers", 8),
        camera_scale=r.get("c_scale", 0),  # the official code's default
        camera_conditioning=not r["c_gen_conditioning_zero"],
        channel_base=k.get("channel_base", 32768),
        channel_max=k.get("channel_max", 512),
        conv_clamp=k.get("conv_clamp"),
        decoder_lr_multiplier=r.get("decoder_lr_mul", 1),
        render_resolution=64,  # initial value; training changes the network's attribute `neural_rendering_resolution`
        num_coarse=r["depth_resolution"],
        num_fine=r["depth_resolution_importance"],
        ray_start=r["ray_start"],
        ray_end=r["ray_end"],
        box_warp=r["box_warp"],
        disparity=r["disparity_space_sampling"],
        white_back=r.get("white_back", False),
        superresolution=SPECS[kind],
        sr_noise=r["superresolution_noise_mode"],
        sr_antialias=r["sr_antialias"],
        precision=precision,  # type: ignore[arg-type]
        num_low_precision=k.get("num_fp16_res", 0),
        sr_low_precision=k.get("sr_num_fp16_res", 0) > 0,
        camera_radius=r.get("avg_camera_radius", 2.7),
        camera_pivot=tuple(r.get("avg_camera_pivot", (0, 0, 0.2))),
    )


def generator_from_official(init_kwargs: dict[str, Any], precision: str = "float32") -> TriPlaneGenerator:
    return TriPlaneGenerator(generator_config_from_official(init_kwargs, precision))


def discriminator_config_from_official(init_kwargs: dict[str, Any], precision: str = "float32") -> DiscriminatorConfig:
    k = _checked("discriminator", init_kwargs, *_DISCRIMINATOR)
    block = _checked("block_kwargs", k.get("block_kwargs", {}), set(), {"freeze_layers"})
    mapping = _checked("mapping_kwargs", k.get("mapping_kwargs", {}), set(), {"num_layers"})
    epilogue = _checked(
        "epilogue_kwargs", k.get("epilogue_kwargs", {}), set(), {"mbstd_group_size", "mbstd_num_channels"}
    )
    _demand("architecture", k.get("architecture", "resnet"), "resnet")
    _demand("img_channels", k["img_channels"], 3)
    _demand("freeze_layers", block.get("freeze_layers", 0), 0)
    return DiscriminatorConfig(
        c_dim=k["c_dim"],
        image_resolution=k["img_resolution"],
        channel_base=k.get("channel_base", 32768),
        channel_max=k.get("channel_max", 512),
        conv_clamp=k.get("conv_clamp", 256),
        mapping_layers=mapping.get("num_layers", 8),
        camera_dim=k.get("cmap_dim"),
        group_size=epilogue.get("mbstd_group_size", 4),
        std_channels=epilogue.get("mbstd_num_channels", 1),
        camera_noise=k.get("disc_c_noise", 0),
        precision=precision,  # type: ignore[arg-type]
        num_low_precision=k.get("num_fp16_res", 4),
    )


def discriminator_from_official(init_kwargs: dict[str, Any], precision: str = "float32") -> DualDiscriminator:
    return DualDiscriminator(discriminator_config_from_official(init_kwargs, precision))


def _checked(what: str, values: dict[str, Any], needed: set[str], also_known: set[str]) -> dict[str, Any]:
    if missing := sorted(needed - set(values)):
        raise ValueError(f"{what}: missing arguments {missing}; every official checkpoint has them")
    if unknown := sorted(set(values) - needed - also_known):
        raise ValueError(f"{what}: unknown arguments {unknown}; known are {sorted(needed | also_known)}")
    return values


def _demand(name: str, value: object, only: object) -> None:
    if value != only:
        raise ValueError(f"{name}={value!r}: only {only!r} is supported here")
