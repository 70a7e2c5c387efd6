"""The text conditioning of a generator: which parts it has, and their sizes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from dreamportrait.core.config import Count
from eg3d_ops._checks import check_int

MOST = {"text_width": 16_384, "token_dim": 4096, "heads": 256, "mapper_blocks": 64, "mapper_width": 16_384}


@dataclass(frozen=True)
class Conditioning:
    """The section `model.conditioning` of a configuration. The defaults are the paper's; an ablation changes one."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    global_path: bool = True  # the semantics mapper: the whole prompt changes w
    local_path: bool = True  # the adapters: words change features
    # Resolutions of the blocks that are followed by an adapter. None = all but the last: six for planes of 256.
    adapters: Annotated[tuple[Count, ...], Field(max_length=16)] | None = None
    # False: a token sees the other planes at its own pixel only, not the columns through its point.
    pooling: bool = True
    gate: bool = True  # tanh gate, closed at first. False: a plain residual
    plain_mapper: bool = False  # True: the paper's mapper, which replaces w. False: a residual, zero at first
    # Residual blocks of a mapper that can hold a text prior in W (a stage with `prior`). 0 = the paper's layers.
    mapper_blocks: Annotated[int, Field(ge=0, le=MOST["mapper_blocks"])] = 0
    mapper_width: Annotated[int, Field(ge=1, le=MOST["mapper_width"])] = 256
    token_dim: Annotated[int, Field(ge=1, le=MOST["token_dim"])] = 64
    heads: Annotated[int, Field(ge=1, le=MOST["heads"])] = 4


@dataclass(frozen=True)
class ConditioningConfig(Conditioning):
    """The conditioning of one generator, for text features of a given width; saved as JSON with its weights."""

    text_width: int = field(kw_only=True)  # channels of the text features

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            if check_int(name, getattr(self, name), 0 if name == "mapper_blocks" else 1) > most:
                raise ValueError(f"{name}={getattr(self, name)}: at most {most}")
        if self.token_dim % self.heads:
            raise ValueError(f"heads={self.heads}: must divide token_dim={self.token_dim}")
        if not (self.global_path or self.local_path):
            raise ValueError("global_path and local_path are both off, so text would have no effect; turn one on")
        if self.adapters is not None:
            if not self.adapters:
                raise ValueError("adapters is empty; name resolutions, or turn local_path off")
            if list(self.adapters) != sorted(set(self.adapters)):
                raise ValueError(f"adapters={list(self.adapters)}: must be ascending, each resolution once")

    def sites(self, resolutions: Sequence[int]) -> tuple[int, ...]:
        """Return the resolutions that have an adapter, in a backbone with blocks of these resolutions."""
        if not self.local_path:
            return ()
        between = tuple(resolutions[:-1])
        if self.adapters is None:
            return between
        if wrong := [r for r in self.adapters if r not in between]:
            raise ValueError(f"adapters={list(self.adapters)}: {wrong} not among the backbone's {list(between)}")
        return self.adapters

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
