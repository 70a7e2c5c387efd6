"""Pickles with the layout of official snapshots, made from our networks as tests/golden/names.json describes them.

Classes of the official code are in modules that exist only during pickling. The installed PyTorch pickles storages,
and Python's own pickler pickles plain values.
"""

import copy
import io
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from golden_networks import state
from goldens import load
from torch import nn

from dreamportrait.eg3d.official import discriminator_from_official, generator_from_official

CLASSES = load("names").info["snapshot"]["classes"]

# Our class name -> the official one. The class of super-resolution depends on the configuration.
NAMES = {
    "TriPlaneGenerator": "TriPlaneGenerator",
    "Backbone": "Generator",
    "SynthesisNetwork": "SynthesisNetwork",
    "SynthesisBlock": "SynthesisBlock",
    "SynthesisLayer": "SynthesisLayer",
    "ToRGB": "ToRGBLayer",
    "MappingNetwork": "MappingNetwork",
    "FullyConnected": "FullyConnectedLayer",
    "DualDiscriminator": "DualDiscriminator",
    "DiscriminatorBlock": "DiscriminatorBlock",
    "Epilogue": "DiscriminatorEpilogue",
    "Conv": "Conv2dLayer",
}
PLAIN_ATTRIBUTES = {
    "plane_axes": None,
    "activation": "lrelu",
    "architecture": "skip",
    "fused_modconv_default": "inference_only",
}


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("an official snapshot was unpickled")


class EasyDict(dict):
    pass


class Persistent(nn.Module):
    """An instance of a decorated class: it pickles as one call, with the source text of its class."""

    def __init__(self, class_name: str, init_kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__["made_as"] = class_name
        self._init_args: tuple = ()
        self._init_kwargs = init_kwargs

    def __reduce__(self):
        state = {key: value for key, value in self.__dict__.items() if key != "made_as"}
        source = "raise SystemExit('the source text was executed')\n"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.made_as, "state": state}
        return _reconstruct_persistent_obj, (meta,)

    def __reduce_ex__(self, protocol):
        return self.__reduce__()


def scalar(*arguments):
    raise AssertionError("an official snapshot was unpickled")


def _plain_class(module: str, name: str) -> type:
    return type(name, (nn.Module,), {"__module__": module})


MODULES = {
    "torch_utils.persistence": [_reconstruct_persistent_obj],
    "dnnlib.util": [EasyDict],
    "numpy.core.multiarray": [scalar],
}
for _module_name, _class_name in (
    ("training.triplane", "OSGDecoder"),
    ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
    ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    ("training.volumetric_rendering.ray_sampler", "RaySampler"),
):
    MODULES[_module_name] = [_plain_class(_module_name, _class_name)]
PLAIN = {thing.__name__: thing for things in MODULES.values() for thing in things}


@contextmanager
def _official_modules() -> Iterator[None]:
    """Create the official modules for pickling, because pickle looks up each name it writes. Remove them afterwards."""
    names = [*MODULES, *{name.partition(".")[0] for name in MODULES} - {"numpy"}]
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: ModuleType(name) for name in names})
    for name, things in MODULES.items():
        for thing in things:
            thing.__module__ = name
            setattr(sys.modules[name], thing.__name__, thing)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class OldNumpy(pickle.Pickler):
    def reducer_override(self, value):
        return (scalar, (value.dtype, value.tobytes())) if isinstance(value, np.generic) else NotImplemented


def dumps(value: object, protocol: int = 4, pickler: type[pickle.Pickler] = pickle.Pickler) -> bytes:
    stream = io.BytesIO()
    with _official_modules():
        pickler(stream, protocol).dump(value)
    return stream.getvalue()


def easy(value: Any) -> Any:
    """Return options whose nested dicts are of the official class, except for rendering_kwargs."""
    return {
        key: EasyDict(item) if isinstance(item, dict) and key != "rendering_kwargs" else item
        for key, item in value.items()
    }


def arguments(name: str) -> dict[str, Any]:
    """Return a copy of a golden network's constructor arguments, which the caller may change."""
    return copy.deepcopy(load(name).info["init_kwargs"])


def golden(name: str) -> nn.Module:
    """Return our network with a golden network's weights."""
    build = discriminator_from_official if name.startswith("discriminator") else generator_from_official
    network = build(arguments(name))
    network.load_state_dict(state(name), strict=True)
    return network.eval()


def official(ours: nn.Module, init_kwargs: dict[str, Any], class_name: str | None = None) -> Persistent:
    """Return the module tree that official code would pickle for a network of ours."""
    network = _module(ours, class_name or NAMES[type(ours).__name__], easy(init_kwargs))
    if "rendering_kwargs" in init_kwargs:
        kind = init_kwargs["rendering_kwargs"]["superresolution_module"].rpartition(".")[2]
        network.superresolution.__dict__["made_as"] = kind
        network.rendering_kwargs = dict(init_kwargs["rendering_kwargs"])
        network.neural_rendering_resolution, network._last_planes = 64, None
        network.renderer = _plain("ImportanceRenderer", plane_axes=official_plane_axes())
        network.renderer.ray_marcher = _plain("MipRayMarcher2")
        fields = ("depths", "image_coords", "ray_directions", "ray_origins_h", "rendering_options")
        network.ray_sampler = _plain("RaySampler", **dict.fromkeys(fields))
    else:
        network.b4.mbstd = _with_attributes(Persistent("MinibatchStdLayer", {"group_size": 4, "num_channels": 1}))
    return network


def official_plane_axes() -> torch.Tensor:
    """Return three bases whose first row is the axis of the width and whose second is that of the height."""
    return torch.eye(3)[torch.tensor([[0, 1, 2], [0, 2, 1], [2, 0, 1]])]


def _plain(name: str, **attributes: Any) -> nn.Module:
    module = PLAIN[name]()
    module.__dict__.update(attributes)
    return module


def _module(ours: nn.Module, class_name: str, init_kwargs: dict[str, Any]) -> Any:
    made = _with_attributes(Persistent(class_name, init_kwargs))
    return _filled(made, ours)


def _filled(made: nn.Module, ours: nn.Module) -> nn.Module:
    for name, value in ours._parameters.items():
        made.register_parameter(name, None if value is None else nn.Parameter(value.detach(), requires_grad=False))
    for name, value in ours._buffers.items():
        made.register_buffer(name, value)
    for name, child in ours.named_children():
        made.add_module(name, _child(child))
    return made.eval()


def _child(ours: nn.Module) -> nn.Module:
    kind = type(ours).__name__
    if kind == "DecoderNetwork":
        return _filled(_plain("OSGDecoder", hidden_dim=64), ours)
    if kind == "Sequential":
        return _filled(nn.Sequential(), ours)
    if kind == "Softplus":
        return nn.Softplus()
    no_up = kind == "SynthesisBlock" and ours.up == 1
    name = "SynthesisBlockNoUp" if no_up else NAMES.get(kind, "SuperresolutionHybrid2X")
    return _module(ours, name, {"resolution": 8, "kwargs": EasyDict(weight_init=np.float64(1.5))})


def _with_attributes(module: Persistent) -> Persistent:
    """Add the plain attributes of official classes, with arbitrary values, and return the module."""
    for key in CLASSES.get(module.made_as, {}).get("state_keys", ()):
        if not key.startswith("_") and key not in ("training", "neural_rendering_resolution", "rendering_kwargs"):
            gain = np.float64(0.5) if key.endswith("gain") else 1
            module.__dict__[key] = PLAIN_ATTRIBUTES.get(key, gain)
    return module


def snapshot(g_ema: nn.Module, d: nn.Module | None = None, g: nn.Module | None = None) -> dict[str, Any]:
    """Return the top-level dict of a snapshot, with networks from `official`."""
    options = EasyDict(class_name="training.dataset.ImageFolderDataset", path="/data/faces.zip", use_labels=True)
    return {"training_set_kwargs": options, "G": g or g_ema, "D": d, "G_ema": g_ema, "augment_pipe": None}
